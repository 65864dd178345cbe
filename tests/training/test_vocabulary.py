"""Training with an extended tokenizer: the base is measured as it is, new rows begin as asked, runs resume."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tokens.toy import texts, write_curated
from tests.training.synthetic import tiny_base, tiny_config
from tests.training.test_stage import go, ledger, metrics

from aurora_m.evaluation import EvaluateConfig, measure_forgetting
from aurora_m.model import BaseConfig, load_model
from aurora_m.tokens import NewRows, TokenizerConfig, load_tokenizer, tokenize
from aurora_m.training import heldout_domains, score_heldout
from aurora_m.training.vocabulary import chosen_documents, new_rows
from aurora_m.workspace import Progress, RecipeError, read_json

QUIET = Progress(quiet=True)
OLD, NEW = ["english", "code"], ["hindi", "japanese"]
PHASE = {"sequence_length": 32, "tokens_per_step": 256, "lr": {"peak": 3e-3, "warmup": "2 steps"}}


def phase(name: str, mixture: dict[str, float], steps: int, **changes) -> dict:
    return {"name": name, "tokens": 256 * steps, "mixture": mixture, **PHASE} | changes


def base_config(**changes):
    return tiny_config(phases=[phase("base", {"english": 0.5, "code": 0.5}, 30)], precision="float32", **changes)


def extended_config(**changes):
    mixture = {"english": 0.2, "code": 0.2, "hindi": 0.3, "japanese": 0.3}
    return tiny_config(**({"phases": [phase("CAP", mixture, 12)], "precision": "float32"} | changes))


def make_tokens(curated: Path, out: Path, base_folder: Path | None = None, **config) -> Path:
    tokenize(TokenizerConfig.model_validate(config), curated, out, base_folder=base_folder, progress=QUIET)
    return out


@pytest.fixture(scope="module")
def curated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curated")
    for domain in OLD + NEW:
        write_curated(folder, domain, texts(domain, 80))
        write_curated(folder, domain, texts(domain, 12, seed=9), "heldout")
    return folder


@pytest.fixture(scope="module")
def base(curated, tmp_path_factory) -> Path:
    """A base model trained on English and code, with the tokenizer of these."""
    folder = tmp_path_factory.mktemp("base")
    tokens = make_tokens(curated, folder / "tokens", train={"vocab_size": 330, "domains": OLD})
    go(tokens, folder / "train", base_config(), tiny_base())
    return folder / "train" / "base" / "model"


@pytest.fixture(scope="module")
def tokens(curated, base, tmp_path_factory) -> Path:
    return make_tokens(curated, tmp_path_factory.mktemp("tokens"), base, extend={"domains": NEW, "new_tokens": 60})


@pytest.fixture(scope="module")
def whole(tokens, base, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    go(tokens, out, extended_config(), BaseConfig(path=str(base)), base)
    return out


def test_held_out_documents_are_there_in_both_tokenizers(tokens):
    own, base = read_json(tokens / "tokens.json"), read_json(tokens / "_base" / "tokens.json")
    assert own["tokenizer"]["kind"] == "extended"
    assert own["tokenizer"]["vocab_size"] == base["tokenizer"]["vocab_size"] + 60
    for domain in OLD + NEW:
        first, second = own["domains"][domain]["heldout"], base["domains"][domain]["heldout"]
        assert (first["documents"], first["bytes"]) == (second["documents"], second["bytes"])
        assert "train" not in base["domains"][domain]
    assert own["domains"]["hindi"]["heldout"]["tokens"] < 0.8 * base["domains"]["hindi"]["heldout"]["tokens"]


def test_new_rows_begin_as_the_mean_of_the_old_tokens_they_stand_for(tokens, base, whole):
    rows, old = load_model(whole / "initial" / "model").embed_tokens.weight, load_model(base).embed_tokens.weight
    assert torch.equal(rows[: len(old)], old)
    tokenizer, before = load_tokenizer(tokens / "tokenizer"), load_tokenizer(tokens / "_base" / "tokenizer")
    checked = 0
    for id in range(len(old), len(rows)):
        text = tokenizer.backend.decode([id])
        if "\ufffd" not in text:
            expected = old[before.encode(text)].mean(dim=0)
            assert (rows[id] - expected).abs().max() < 1e-6
            checked += 1
    assert checked > 10


def test_the_ledger_compares_with_the_base_under_its_own_tokenizer(tokens, base, whole):
    untouched = score_heldout(load_model(base), tokens / "_base", heldout_domains(tokens), 32, precision="float32")
    extended = score_heldout(
        load_model(whole / "initial" / "model"), tokens, heldout_domains(tokens), 32, precision="float32"
    )
    rows = ledger(whole)
    for row in rows:
        assert row["base_bpb"] == pytest.approx(untouched[row["domain"]].bpb, rel=1e-6)
        assert row["change"] == pytest.approx(row["bpb"] / row["base_bpb"] - 1)
        assert row["change_stderr"] is not None
    for row in [row for row in rows if row["step"] == 0]:
        assert row["bpb"] == pytest.approx(extended[row["domain"]].bpb, rel=1e-6)
        assert abs(row["change"]) > 0.001 or row["domain"] in OLD
    assert {row["step"] for row in rows} >= {0, 12}


def test_the_initial_folder_has_the_base_with_its_own_tokenizer(base, whole):
    assert read_json(whole / "train.json")["base_model"] == "initial/base"
    kept = whole / "initial" / "base"
    assert (kept / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert load_tokenizer(kept).vocab_size == load_tokenizer(base).vocab_size
    assert load_tokenizer(whole / "CAP" / "model").vocab_size == load_model(whole / "CAP" / "model").config.vocab_size


def test_evaluation_scores_the_base_in_its_own_tokens(tokens, whole):
    models = {"base": whole / "initial" / "base", "trained": whole / "CAP" / "model"}
    found = measure_forgetting(models, tokens, EvaluateConfig(), QUIET)["forgetting"]
    last = {row["domain"]: row for row in ledger(whole) if row["step"] == 12}
    for domain in OLD + NEW:
        assert found[domain]["base_bpb"] == pytest.approx(last[domain]["base_bpb"], rel=1e-6)
        assert found[domain]["trained_bpb"] == pytest.approx(last[domain]["bpb"], rel=1e-6)


def test_under_a_cap_both_score_the_same_documents(tokens, base, tmp_path):
    config = extended_config(ledger={"every": 10_000, "heldout_tokens": 150})
    go(tokens, tmp_path, config, BaseConfig(path=str(base)), base)
    scores = read_json(tmp_path / "initial" / "base_scores.json")["domains"]
    first = {row["domain"]: row for row in ledger(tmp_path) if row["step"] == 0}
    chosen = chosen_documents(tokens, 150)
    for domain in OLD + NEW:
        assert scores[domain]["bytes"] == first[domain]["bytes"]
        assert scores[domain]["documents"] == first[domain]["documents"] == len(chosen[domain]) < 12
    with np.load(tmp_path / "base_bits.npz") as bits:
        assert {domain: len(bits[domain]) for domain in chosen} == {key: len(one) for key, one in chosen.items()}


def test_a_stopped_run_goes_on_to_the_same_end(tokens, base, whole, tmp_path):
    go(tokens, tmp_path, extended_config(checkpoint={"every": 1024}), BaseConfig(path=str(base)), base)
    steps = sorted((tmp_path / "CAP" / "checkpoints").glob("step-*"))
    shutil.rmtree(steps[-1])
    shutil.rmtree(tmp_path / "initial" / "base")  # is made again where it is missing
    (tmp_path / "train.json").unlink()
    go(tokens, tmp_path, extended_config(checkpoint={"every": 1024}), BaseConfig(path=str(base)), base)
    for name in ("CAP/model/model.safetensors", "initial/model/model.safetensors", "initial/base/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert [row["bpb"] for row in ledger(tmp_path)] == [row["bpb"] for row in ledger(whole)]
    assert metrics(tmp_path)[-1]["loss"] == metrics(whole)[-1]["loss"]


def test_another_initialisation_starts_anew(curated, tokens, base, whole, tmp_path):
    out = tmp_path / "train"
    shutil.copytree(whole, out)
    other = make_tokens(curated, tmp_path / "tokens", base, extend={"domains": NEW, "new_tokens": 60, "init": "random"})
    go(other, out, extended_config(), BaseConfig(path=str(base)), base)
    assert any((out / "superseded").glob("initial-*"))
    rows, mean = (load_model(one / "initial" / "model").embed_tokens.weight for one in (out, whole))
    old = len(load_model(base).embed_tokens.weight)
    assert torch.equal(rows[:old], mean[:old])
    assert not torch.equal(rows[old:], mean[old:])
    assert rows[old:].std().item() == pytest.approx(rows[:old].std().item(), rel=0.1)


def test_rows_are_mixtures_by_weight():
    rows = NewRows("mean", 3, np.array([0, 2, 3]), np.array([0, 2, 1], np.int32), np.array([0.25, 0.75, 1], "f4"))
    old = torch.arange(6.0).reshape(3, 2)
    assert new_rows(rows, "x", old, seed=0).tolist() == [[3.0, 4.0], [2.0, 3.0]]


def test_adapters_are_refused(tokens, base, tmp_path):
    with pytest.raises(RecipeError, match="train.lora does not train the rows"):
        go(tokens, tmp_path, extended_config(lora={"rank": 2, "alpha": 4}), BaseConfig(path=str(base)), base)


def test_a_base_with_fewer_tokens_than_its_tokenizer_is_refused(tokens, base, tmp_path):
    small = tmp_path / "small"
    shutil.copytree(base, small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 200}))
    with pytest.raises(RecipeError, match="the tokenizer has 330 tokens and the base model 200"):
        go(tokens, tmp_path / "out", extended_config(), BaseConfig(path=str(small)), small)
    assert not (tmp_path / "out").exists()


def test_the_loss_of_old_and_new_tokens_makes_up_the_whole(whole):
    for row in metrics(whole):
        old, new, loss = row["loss_old_tokens"], row["loss_new_tokens"], row["loss"]
        assert min(old, new) < loss < max(old, new)
    first, last = metrics(whole)[0], metrics(whole)[-1]
    assert last["loss_new_tokens"] < first["loss_new_tokens"]


def test_at_first_only_embeddings_learn_also_over_a_stop(tokens, base, tmp_path):
    def run(out, **changes):
        config = extended_config(embeddings_first=1280, checkpoint={"every": 512, "keep": 9}, **changes)
        go(tokens, out, config, BaseConfig(path=str(base)), base)
        return load_model(out / "CAP" / "model"), load_model(out / "initial" / "model")

    mixture = {"english": 0.2, "code": 0.2, "hindi": 0.3, "japanese": 0.3}
    short, before = run(tmp_path / "short", phases=[phase("CAP", mixture, 5)])
    changed = {
        name
        for (name, one), other in zip(short.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert changed == {"embed_tokens.weight"}
    out = tmp_path / "long"
    whole, before = run(out)
    pairs = zip(whole.parameters(), before.parameters(), strict=True)
    assert not any(torch.equal(one, other) for one, other in pairs)
    for folder in sorted((out / "CAP" / "checkpoints").glob("step-*"))[2:]:  # before the rest begins to learn
        shutil.rmtree(folder)
    (out / "train.json").unlink()
    shutil.rmtree(out / "CAP" / "model")
    again, _ = run(out)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_embeddings_first_that_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match=r"embeddings_first 5000 is more than the 3072 tokens of phase CAP"):
        extended_config(embeddings_first=5000)
    with pytest.raises(ValueError, match="does not go with lora"):
        extended_config(embeddings_first=256, parallel={"pipeline": 2})
