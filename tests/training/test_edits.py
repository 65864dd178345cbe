"""Edits of a stopped run go on from its last checkpoint, token-exact; what cannot go on is said and done again."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from tests.heard import Heard
from tests.training.synthetic import EOD, VOCAB_SIZE, tiny_config, write_tokens
from tests.training.test_stage import go, ledger, metrics, run_killed_at

from aurora_m.tokens import ShardWriter
from aurora_m.training import StoppedByUser
from aurora_m.training.checkpoint import list_checkpoints, read_record
from aurora_m.training.state import TrainingState
from aurora_m.workspace import read_json, write_json

EDITED = {"aa": 0.5, "bb": 0.5}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("edits") / "tokens")


@pytest.fixture(scope="module")
def stopped(tokens, tmp_path_factory):
    """A run stopped after step 16, the fourth of CAP."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    stop_at(16, tokens, out)
    return out


@pytest.fixture
def out(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "out")


def stop_at(step: int, tokens, out, config=None, phase=None) -> Heard:
    heard, count = Heard(), TrainingState.count

    def count_and_stop(self, *arguments):
        count(self, *arguments)
        if self.step == step and phase in (None, self.phase):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoppedByUser):
        patch.setattr(TrainingState, "count", count_and_stop)
        go(tokens, out, config, progress=heard)
    return heard


def with_cap(**changes):
    phases = [phase.model_dump(exclude_unset=True) for phase in tiny_config().phases]
    return tiny_config(phases=[phases[0], phases[1] | changes])


def weights(out, phase="CAP") -> bytes:
    return (out / phase / "model" / "model.safetensors").read_bytes()


def add_documents(folder, domain: str, count: int, first: bool = False, drop: int = 0) -> None:
    """Writes a domain's shards anew with another source, before or behind the old one."""
    random = np.random.default_rng(5)
    old = write_tokens(folder.parent / f"old-{domain}")
    from aurora_m.tokens import DomainTokens

    before = DomainTokens(old, domain)
    kept = [("made", before.ids([n])[0], before.document(n).tolist()) for n in range(drop, before.documents)]
    new = [("new", f"new{n}", [*random.integers(5, 290, 30).tolist(), EOD]) for n in range(count)]
    for path in (folder / domain).glob("train-*"):
        path.unlink()
    with ShardWriter(folder / domain, "train", VOCAB_SIZE) as writer:
        for source, name, text in [*new, *kept] if first else [*kept, *new]:
            writer.append(text, id=name, source=source, lang=None, size=4 * len(text))
    facts = read_json(folder / "tokens.json")
    counts = {"documents": writer.documents, "bytes": writer.bytes, "tokens": writer.tokens}
    facts["domains"].setdefault(domain, {})["train"] = counts
    write_json(folder / "tokens.json", facts)
    shutil.rmtree(old)


# ---- shares


def test_a_new_mixture_goes_on_from_the_checkpoint(tokens, out):
    before, heard = metrics(out), Heard()
    facts = go(tokens, out, with_cap(mixture=EDITED), progress=heard)
    assert "phase CAP goes on at 2.3K tokens with a new mixture: aa 0.25 -> 0.5, bb 0.25 -> 0.5, cc 0.5 -> none" in (
        heard.lines
    )
    assert metrics(out)[:16] == before and not (out / "superseded").exists()
    given = metrics(out)[-1]["tokens_by_domain"]
    then = metrics(out)[15]["tokens_by_domain"]
    assert {name: given[name] - then[name] for name in given} == {"aa": 576, "bb": 576, "cc": 0}
    cap = facts["phases"][1]
    assert [(entry["tokens"], entry["shares"], entry["why"]) for entry in cap["mixtures"]] == [
        (1536, {"aa": 0.25, "bb": 0.25, "cc": 0.5}, "phase begins"),
        (2304, EDITED, "recipe edited"),
    ]
    assert read_json(out / "mixtures.json")[1:] == cap["mixtures"]
    # nothing more to do, and the old mixture would be another phase
    assert go(tokens, out, with_cap(mixture=EDITED)) == facts
    heard = Heard()
    go(tokens, out, progress=heard)
    assert any("phase CAP has changed (a new mixture: aa 0.5 -> 0.25" in line for line in heard.lines)
    assert any("but it is finished" in line for line in heard.lines)


@pytest.mark.parametrize("steps", [[17], [19, 22]])
def test_stops_after_an_edit_change_no_bit(tokens, stopped, tmp_path, steps):
    outs = [shutil.copytree(stopped, tmp_path / name) for name in ("whole", "stops")]
    config = with_cap(mixture=EDITED)
    go(tokens, outs[0], config)
    for step in steps:
        stop_at(step, tokens, outs[1], config)
    shutil.rmtree(outs[1] / "CAP" / "checkpoints" / f"step-{steps[-1]:08}")  # as after a kill: back across the edit
    go(tokens, outs[1], config)
    assert metrics(outs[0]) == metrics(outs[1]) and ledger(outs[0]) == ledger(outs[1])
    assert weights(outs[0]) == weights(outs[1])


def test_kills_in_and_after_an_edit_change_no_bit(tokens, stopped, tmp_path):
    new = shutil.copytree(tokens, tmp_path / "tokens")
    add_documents(new, "cc", 20, first=True)
    moments = [9, 28]
    outs = [shutil.copytree(stopped, tmp_path / str(moment)) for moment in ["whole", *moments]]
    config = "with_cap(mixture={'aa': 0.5, 'cc': 0.5})"
    go(new, outs[0], with_cap(mixture={"aa": 0.5, "cc": 0.5}))
    run_killed_at(moments, new, tmp_path, config, "from tests.training.test_edits import with_cap")
    for out in outs[1:]:
        assert metrics(out) == metrics(outs[0]) and ledger(out) == ledger(outs[0]) and weights(out) == weights(outs[0])
        assert not (out / "superseded").exists()


def test_a_dropped_domain_comes_back_where_it_was(tokens, stopped, tmp_path):
    """Two edits that undo each other at once change nothing but the deal."""
    out = shutil.copytree(stopped, tmp_path / "out")
    cursor = read_record(list_checkpoints(out / "CAP")[-1])["batches"]["domains"]["cc"]
    stop_at(18, tokens, out, with_cap(mixture=EDITED))
    record = read_record(list_checkpoints(out / "CAP")[-1])["batches"]
    assert record["domains"]["cc"] == cursor
    go(tokens, out)
    record = read_record(list_checkpoints(out / "CAP")[-1])["batches"]
    assert [entry["tokens"] for entry in record["history"]] == [0, 1536, 2304, 2688]
    assert record["domains"]["cc"]["tokens_given"] > cursor["tokens_given"]


def test_a_phase_may_grow_where_its_rates_stay(tokens, tmp_path):
    phases = [phase.model_dump(exclude_unset=True) for phase in tiny_config().phases]
    phases[1]["lr"] = {"peak": 1e-3, "decay": "linear", "over": 5000}
    longer = [phases[0], phases[1] | {"tokens": 12 * 192}]
    stop_at(16, tokens, tmp_path / "out", tiny_config(phases=phases))
    heard = Heard()
    facts = go(tokens, tmp_path / "out", tiny_config(phases=longer), progress=heard)
    assert any("goes on at 2.3K tokens with 2.3K tokens instead of 1.92K" in line for line in heard.lines)
    go(tokens, tmp_path / "whole", tiny_config(phases=longer))
    assert weights(tmp_path / "out") == weights(tmp_path / "whole") and facts["phases"][1]["steps"] == 12


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lr": {"peak": 1e-3, "warmup": 200, "decay": "linear"}}, "lr.peak 0.002 -> 0.001"),
        ({"tokens": 12 * 192}, "lr.span 1920 -> 2304"),  # the decay would have been another
        ({"sequence_length": 32}, "sequence_length 64 -> 32"),
        ({"tokens_per_step": 128}, "tokens_per_step 192 -> 128"),
        ({"tokens": 3 * 192, "lr": {"peak": 2e-3, "warmup": 200, "decay": "linear", "over": 1920}}, "4 of its steps"),
    ],
)
def test_what_must_be_trained_again_is_named(tokens, out, changes, why):
    heard = Heard()
    go(tokens, out, with_cap(**changes), progress=heard)
    assert any(line.startswith("phase CAP has changed") and why in line for line in heard.lines), heard.lines
    assert [path.name[:4] for path in (out / "superseded").iterdir()] == ["CAP-"]


def test_another_seed_redoes_all_and_says_so(tokens, out):
    from tests.training.synthetic import tiny_base

    from aurora_m.training import train

    heard = Heard()
    train(tiny_config(), tiny_base(), tokens, out, seed=2, base_folder=None, progress=heard)
    assert any("phase base has changed (start.seed 1 -> 2)" in line for line in heard.lines)
    assert any("phase CAP has changed (follows base)" in line for line in heard.lines)


# ---- documents


@pytest.mark.parametrize("first", [False, True])
def test_a_source_added_to_a_domain_joins_and_nothing_is_repeated(tokens, out, tmp_path, first):
    new = shutil.copytree(tokens, tmp_path / "tokens")
    add_documents(new, "cc", 20, first)
    heard = Heard()
    longer = with_cap(tokens=60 * 192, lr={"peak": 1e-3, "decay": "constant"})
    shutil.rmtree(out)
    stop_at(16, tokens, out, longer)
    go(new, out, longer, progress=heard)
    assert "domain cc: 20 documents joined, 0 are gone" in heard.lines
    assert not (out / "superseded").exists() and go(new, out, longer)["phases"][1]["steps"] == 60
    record = read_record(list_checkpoints(out / "CAP")[-1])["batches"]["domains"]["cc"]
    given = record["tokens_given"]
    total = read_json(new / "tokens.json")["domains"]["cc"]["train"]["tokens"]
    # an epoch is over once all tokens of all documents were given, the first ones not twice
    assert record["documents"] == 80 and record["epoch"] == given // total


def test_documents_that_go_are_passed_over_and_the_others_stay(tokens, out, tmp_path):
    new = shutil.copytree(tokens, tmp_path / "tokens")
    add_documents(new, "bb", 5, drop=10)
    heard = Heard()
    go(new, out, progress=heard)
    assert "domain bb: 5 documents joined, 10 are gone" in heard.lines
    assert not (out / "superseded").exists()


def test_changed_documents_of_a_finished_run_redo_the_phases_that_read_them(tokens, out, tmp_path):
    facts = go(tokens, out)
    new = shutil.copytree(tokens, tmp_path / "tokens")
    add_documents(new, "cc", 20)
    heard = Heard()
    assert go(new, out, progress=heard)["phases"][0] == facts["phases"][0]
    assert any("phase CAP has changed (other documents of cc)" in line for line in heard.lines)


def test_a_new_domain_is_measured_in_the_base_too(tokens, out, tmp_path):
    wide = write_tokens(tmp_path / "wide", ("aa", "bb", "cc", "dd"))
    for name in ("aa", "bb", "cc"):
        shutil.rmtree(wide / name)
        shutil.copytree(tokens / name, wide / name)
    config = with_cap(mixture={"aa": 0.25, "bb": 0.25, "dd": 0.5})
    go(wide, out, config)
    rows = [row for row in ledger(out) if row["domain"] == "dd"]
    assert rows[0]["step"] == 12 and rows[0]["change"] == 0
    assert all(row["change"] is not None and row["change_stderr"] is not None for row in rows)
    base = {row["domain"]: row["bpb"] for row in ledger(out) if row["step"] == 12}
    assert all(row["base_bpb"] == base[row["domain"]] for row in ledger(out) if row["step"] > 12)


def test_the_held_out_text_of_a_run_stays_though_the_split_moves(tokens, out, tmp_path):
    new = shutil.copytree(tokens, tmp_path / "tokens")
    with ShardWriter(new / "aa", "heldout", VOCAB_SIZE) as writer:
        for number in range(3):
            writer.append([7, 8, 9, EOD], id=f"h{number}", source="new", lang=None, size=12)
    go(new, out)
    assert len({(row["domain"], row["bytes"], row["documents"]) for row in ledger(out)}) == 3


def test_mixtures_of_a_run_are_json(tokens, out):
    go(tokens, out, with_cap(mixture=EDITED))
    assert json.loads((out / "mixtures.json").read_text())[0]["phase"] == "base"
