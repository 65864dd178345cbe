"""Bad steps change nothing, training goes back where they persist, and their documents are left out from there on."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import PYTHONPATH
from tests.heard import Heard
from tests.training.synthetic import tiny_base, tiny_config, write_tokens

from aurora_m.training import trainer as trainer_module
from aurora_m.training.config import GuardianConfig
from aurora_m.training.guardian import Guardian
from aurora_m.training.stage import train
from aurora_m.workspace import AuroraError, Progress, read_json

# ---- one decision


def judge_all(values: list[float], **config) -> list[bool]:
    guardian = Guardian(GuardianConfig(**config))
    return [bool(guardian.judge(torch.tensor(value), torch.tensor(1.0))) for value in values]


def slow_judge(values: list[float], sigma: float, window: int) -> list[bool]:
    """The rule, one value after the other."""
    kept: list[float] = []
    bad = []
    for value in map(np.float32, values):
        if not math.isfinite(value):
            bad.append(True)
            continue
        limit = math.inf
        if len(kept) >= window // 4:
            recent = np.array(kept[-window:], np.float64)
            deviation = recent.std(ddof=1) if len(recent) > 1 else 0.0
            limit = recent.mean() + sigma * deviation
        # Where the two roundings may differ, nothing is said.
        bad.append(None if abs(value - limit) < 1e-3 * (1 + abs(limit)) else bool(value > limit))
        kept.append(min(float(value), limit))
    return bad


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 20, width=32) | st.sampled_from([math.nan, math.inf, 500.0]), max_size=60))
def test_decisions_equal_those_of_the_plain_rule(values):
    expected = slow_judge(values, 3.0, 16)
    # From the first value that rounding may decide, the two may go apart.
    sure = expected.index(None) if None in expected else len(expected)
    assert judge_all(values, sigma=3.0, window=16)[:sure] == expected[:sure]


def test_a_spike_hides_no_second_one_and_a_falling_loss_is_none():
    noise = np.random.default_rng(0).normal(3, 0.05, 200).tolist()
    assert judge_all([*noise, 7.0, 3.0, 7.0]) == [False] * 200 + [True, False, True]
    assert not any(judge_all(np.linspace(10, 2, 300).tolist()))
    assert judge_all([*noise, 7.0, math.nan], sigma=None) == [False] * 201 + [True]


# ---- a run


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens")


def go(tokens: Path, out: Path, progress: Progress | None = None, **changes) -> dict:
    config = tiny_config(checkpoint={"every": 384, "keep": 3}, **changes)
    return train(config, tiny_base(), tokens, out, seed=1, base_folder=None, progress=progress or Progress(quiet=True))


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> bytes:
    return (out / "CAP" / "model" / "model.safetensors").read_bytes()


def documents_of_steps(tokens: Path, out: Path, monkeypatch) -> list[dict[str, set[int]]]:
    """What an undisturbed run reads, step by step."""
    seen: list[dict[str, set[int]]] = []
    accumulate = trainer_module.accumulate_gradients

    def watch(model, batch, *rest):
        seen.append({})
        for domain, numbers in zip(batch.domains, batch.documents, strict=True):
            seen[-1].setdefault(domain, set()).update(numbers)
        return accumulate(model, batch, *rest)

    monkeypatch.setattr(trainer_module, "accumulate_gradients", watch)
    go(tokens, out)
    monkeypatch.setattr(trainer_module, "accumulate_gradients", accumulate)
    return seen


def poison(monkeypatch, is_poisoned) -> None:
    """Gradients and losses of a step are NaN where one of its documents is poisoned."""
    accumulate = trainer_module.accumulate_gradients

    def poisoned(model, batch, *rest):
        nll = accumulate(model, batch, *rest)
        pairs = zip(batch.domains, batch.documents, strict=True)
        hit = torch.tensor([any(is_poisoned(domain, number) for number in numbers) for domain, numbers in pairs])
        if hit.any():
            for parameter in model.parameters():
                parameter.grad.fill_(math.nan)
        return nll.masked_fill(hit, math.nan)

    monkeypatch.setattr(trainer_module, "accumulate_gradients", poisoned)


def test_one_bad_batch_costs_its_own_step_only(tokens, tmp_path, monkeypatch):
    seen = documents_of_steps(tokens, tmp_path / "whole", monkeypatch)
    calls = 0
    accumulate = trainer_module.accumulate_gradients

    def break_once(model, *rest):
        nonlocal calls
        calls += 1
        nll = accumulate(model, *rest)
        if calls == 15:
            model.embed_tokens.weight.grad[3] = math.nan
        return nll

    monkeypatch.setattr(trainer_module, "accumulate_gradients", break_once)
    go(tokens, tmp_path / "out")
    skipped = [row for row in rows(tmp_path / "out") if row["kind"] == "skipped"]
    assert [row["step"] for row in skipped] == [15] and "gradient norm nan" in skipped[0]["reason"]
    whole, out = rows(tmp_path / "whole"), rows(tmp_path / "out")
    assert [row["loss"] for row in whole[:14]] == [row["loss"] for row in out[:14]]
    assert out[15]["loss"] != whole[15]["loss"] and math.isfinite(out[-1]["loss"])
    assert len(out) == len(seen) == 22
    assert not list((tmp_path / "out").rglob("quarantine.json"))


def persistent(tokens: Path, out: Path, monkeypatch, first: int = 16) -> set[tuple[str, int]]:
    """Documents of one domain that four steps in a row have, from step `first` on."""
    seen = documents_of_steps(tokens, out, monkeypatch)
    return {("cc", number) for step in seen[first - 1 : first + 3] for number in step.get("cc", ())}


def test_bad_steps_that_persist_send_training_back_without_their_documents(tokens, tmp_path, monkeypatch):
    bad = persistent(tokens, tmp_path / "whole", monkeypatch)
    poison(monkeypatch, lambda domain, number: (domain, number) in bad)
    heard = Heard()
    go(tokens, tmp_path / "out", heard)
    (entry,) = read_json(tmp_path / "out" / "CAP" / "quarantine.json")
    # Those of the sequences that were not finite, and only of these: the other domains' are innocent.
    assert set(entry["documents"]) == {"cc"} and {("cc", number) for number in entry["documents"]["cc"]} & bad
    assert entry["ids"]["cc"] == [f"train{number}" for number in entry["documents"]["cc"]]
    assert any("back from step" in line and "quarantine.json" in line for line in heard.lines)
    taken = [row for row in rows(tmp_path / "out") if row["kind"] == "step"]
    assert [row["step"] for row in taken][-1] == 22 and all(math.isfinite(row["loss"]) for row in taken)
    assert [row["kind"] for row in rows(tmp_path / "out")].count("went back") == 1


def test_killed_on_the_way_back_it_ends_as_if_it_never_was(tokens, tmp_path, monkeypatch):
    bad = sorted(persistent(tokens, tmp_path / "whole", monkeypatch))
    poison(monkeypatch, lambda domain, number: (domain, number) in bad)
    go(tokens, tmp_path / "out")
    program = (
        "import json, os, signal, sys, pytest\n"
        "from pathlib import Path\n"
        "import aurora_m.training.rollback as rollback\n"
        "from tests.training.test_guardian import go, poison\n"
        "bad = {tuple(one) for one in json.loads(sys.argv[3])}\n"
        "poison(pytest.MonkeyPatch(), lambda domain, number: (domain, number) in bad)\n"
        "write = rollback.write_quarantine\n"
        "def die(*arguments):\n"
        "    write(*arguments)\n"
        "    if not Path(sys.argv[2], 'died').exists():\n"
        "        Path(sys.argv[2], 'died').touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "rollback.write_quarantine = die\n"
        "go(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", program, str(tokens), str(tmp_path / "killed"), json.dumps(bad)]
    codes = [subprocess.run(command, env=environment, timeout=120, check=False).returncode for _ in range(2)]
    assert codes == [-signal.SIGKILL, 0]
    assert weights(tmp_path / "killed") == weights(tmp_path / "out")


def test_what_cannot_be_cured_ends_with_one_message_and_nothing_spoilt(tokens, tmp_path, monkeypatch):
    poison(monkeypatch, lambda domain, number: domain == "cc")
    with pytest.raises(AuroraError, match=r"phase CAP, step .*loss nan.*cc.*last good checkpoint") as error:
        go(tokens, tmp_path, guardian={"rollbacks": 2})
    assert "went back 2 times" in str(error.value)
    assert len(read_json(tmp_path / "CAP" / "quarantine.json")) == 2


def test_before_the_first_checkpoint_there_is_no_way_back(tokens, tmp_path, monkeypatch):
    poison(monkeypatch, lambda domain, number: True)
    with pytest.raises(AuroraError, match="there is no checkpoint to go back to yet"):
        go(tokens, tmp_path)
