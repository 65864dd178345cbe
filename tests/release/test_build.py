"""A release is the model that was trained, loads anywhere, and says what it is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.release.small_release import QUIET, edit_json, make_release_run, write_model

from aurora_m.release import ReleaseConfig, ReleaseError, read_facts, release, verify_release
from aurora_m.release.build import final_model
from aurora_m.release.verify import verify_model
from aurora_m.workspace import AuroraError, read_json

CONFIG = ReleaseConfig(license="apache-2.0", author="Laura | <script>alert(1)</script>")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run = make_release_run(tmp_path_factory.mktemp("release") / "run")
    release(CONFIG, run, run / "release", read_json(run / "recipe.json"), QUIET)
    return run


@pytest.fixture
def fresh(tmp_path) -> Path:
    return make_release_run(tmp_path / "run")


def logits_of_transformers(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits


def logits_of_ours(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    from aurora_m.model import load_model

    model = load_model(folder).eval()
    with torch.no_grad():
        return model.logits(model(ids))


def check(run: Path, folder: Path) -> None:
    tokens = read_json(run / "tokens" / "tokens.json")
    original, _ = final_model(read_facts(run))
    verify_model(folder, original, run / "tokens", list(tokens["domains"]), tokens["tokenizer"]["eod_id"])


def test_transformers_gives_the_logits_of_the_tuned_model(run):
    ids = torch.arange(1, 200)[None]
    theirs = logits_of_transformers(run / "release", ids)
    assert (theirs - logits_of_ours(run / "align" / "SFT" / "model", ids)).abs().max() < 1e-4
    assert (theirs - logits_of_ours(run / "train" / "CAT" / "model", ids)).abs().max() > 1e-2


def test_summary_holds_the_evidence(run):
    summary = read_json(run / "release" / "release.json")
    assert 0 <= summary["verification"]["max_logit_difference"] < 1e-4
    assert summary["verification"]["tokens"] > 300 and summary["verification"]["round_trips"] >= 6
    assert summary["model"]["from"] == "align/SFT/model"


def test_llama_is_released_too(tmp_path):
    run = make_release_run(tmp_path / "run", family="llama")
    summary = release(CONFIG, run, run / "release", read_json(run / "recipe.json"), QUIET)
    assert summary["model"]["type"] == "llama" and verify_release(run / "release") >= 9


def test_other_weights_are_refused_and_the_difference_is_named(run, tmp_path):
    copy = _copy(run / "release", tmp_path)
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("mlp.c_proj.weight"))
    weights[name][0] += 0.01  # one row only: a shift of all rows alike is undone by the next LayerNorm
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ReleaseError, match=r"logits differ from ours by \d.*less than 0.0001"):
        check(run, copy)


def test_nan_is_a_difference(run, tmp_path):
    copy = _copy(run / "release", tmp_path)
    weights = {name: tensor.clone() for name, tensor in load_file(copy / "model.safetensors").items()}
    weights["transformer.ln_f.weight"][0] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ReleaseError, match="nan"):
        check(run, copy)


def test_another_tokenizer_is_refused(run, tmp_path):
    copy = _copy(run / "release", tmp_path)
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-60]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ReleaseError, match="tokenizer is not the one"):
        check(run, copy)


def test_a_folder_transformers_cannot_load_is_refused(run, tmp_path):
    copy = _copy(run / "release", tmp_path)
    edit_json(copy / "config.json", n_layer=3, model_type="no_such_family")
    with pytest.raises(ReleaseError, match="cannot load the release"):
        check(run, copy)


def test_generation_that_would_not_stop_is_refused(run, tmp_path):
    copy = _copy(run / "release", tmp_path)
    edit_json(copy / "generation_config.json", eos_token_id=7)
    with pytest.raises(ReleaseError, match="would stop at token 7"):
        check(run, copy)


def test_the_cards_example_runs_as_it_stands(run):
    card = (run / "release" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=run / "release", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]


def test_chat_template_writes_what_the_tuning_wrote(run):
    from transformers import AutoTokenizer

    from aurora_m.safety import format_instruction

    tokenizer = AutoTokenizer.from_pretrained(run / "release")
    chat = [{"role": "user", "content": "Miksi {x}?\n"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == tokenizer.eos_token + format_instruction("Miksi {x}?\n")
    answered = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": "Siksi."}], tokenize=False)
    assert answered == prompt + "Siksi." + tokenizer.eos_token


def test_only_what_belongs_to_a_model_is_copied(fresh):
    for name in ("optimizer.pt", "notes.txt", "modeling_evil.py"):
        (fresh / "align" / "SFT" / "model" / name).write_bytes(b"x")
    release(CONFIG, fresh, fresh / "release", read_json(fresh / "recipe.json"), QUIET)
    assert {path.name for path in (fresh / "release").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "README.md", "DATA_CARD.md", "recipe.yaml", "release.json", "SHA256SUMS",
    }  # fmt: skip


def test_without_tuning_the_trained_model_is_released_and_no_chat_format_promised(fresh):
    (fresh / "align" / "align.json").unlink()
    summary = release(CONFIG, fresh, fresh / "release", read_json(fresh / "recipe.json"), QUIET)
    assert summary["model"]["from"] == "train/CAT/model" and not summary["model"]["instruction_tuned"]
    assert "chat_template" not in read_json(fresh / "release" / "tokenizer_config.json")
    assert "apply_chat_template" not in (fresh / "release" / "README.md").read_text(encoding="utf-8")


def test_tuning_that_was_switched_off_is_no_tuning(fresh):
    edit_json(fresh / "align" / "align.json", final_model="../train/CAT/model")
    folder, tuned = final_model(read_facts(fresh))
    assert folder == (fresh / "train" / "CAT" / "model").resolve() and not tuned


def test_same_run_gives_the_same_release(run, tmp_path):
    release(CONFIG, run, tmp_path / "again", read_json(run / "recipe.json"), QUIET)
    assert (tmp_path / "again" / "SHA256SUMS").read_text() == (run / "release" / "SHA256SUMS").read_text()


def test_weights_in_bfloat16_are_released_as_they_are(fresh):
    from aurora_m.model import load_model, save_model

    folder = fresh / "align" / "SFT" / "model"
    model = load_model(folder)
    save_model(model, folder, fresh / "tokens" / "tokenizer", eod_id=0, dtype=torch.bfloat16)
    summary = release(CONFIG, fresh, fresh / "release", read_json(fresh / "recipe.json"), QUIET)
    assert summary["model"]["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("missing", "message"),
    [("train/train.json", "run the train stage"), ("tokens/tokens.json", "run the tokenize stage")],
)
def test_a_stage_that_has_not_run_is_named(missing, message, fresh):
    (fresh / missing).unlink()
    with pytest.raises(AuroraError, match=message):
        release(CONFIG, fresh, fresh / "release", {}, QUIET)


def test_a_model_that_is_gone_is_named(fresh):
    edit_json(fresh / "align" / "align.json", final_model="SFT/gone")
    with pytest.raises(AuroraError, match="gone"):
        release(CONFIG, fresh, fresh / "release", {}, QUIET)


def test_a_model_of_another_vocabulary_is_refused(fresh, tmp_path):
    other = make_release_run(tmp_path / "other", vocab_size=330)
    write_model(fresh / "align" / "SFT" / "model", other / "tokens" / "tokenizer", "gpt_bigcode", 3)
    with pytest.raises(AuroraError, match="vocabulary"):
        release(CONFIG, fresh, fresh / "release", read_json(fresh / "recipe.json"), QUIET)


def test_recipe_is_readable_and_without_secrets(fresh):
    recipe = read_json(fresh / "recipe.json")
    recipe["domains"]["fi"]["sources"][0]["path"] = "s3://me:hunter2@bucket/fi.parquet"
    release(CONFIG, fresh, fresh / "release", recipe, QUIET)
    published = yaml.safe_load((fresh / "release" / "recipe.yaml").read_text(encoding="utf-8"))
    assert published["domains"]["fi"]["sources"][0]["path"] == "s3://bucket/fi.parquet"
    assert published["train"] == recipe["train"]
    assert not [path for path in (fresh / "release").iterdir() if b"hunter2" in path.read_bytes()]


def _copy(folder: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, target / "copy"))
