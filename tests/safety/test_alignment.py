import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tests.safety.material import QUIET, row, write_rows, write_trained

from aurora_m.model import count_parameters, load_model
from aurora_m.safety import AlignConfig, align
from aurora_m.training import StoppedByUser, TrainingState
from aurora_m.workspace import DataError, RecipeError

LR = {"warmup": 0, "peak": 1e-2, "decay": "linear", "to": 1e-3}


def run(train: Path, tokens: Path, out: Path, **changes) -> dict:
    """Two epochs of 64-token sequences, 128 tokens a step."""
    settings = {"epochs": 2, "tokens_per_step": 128, "lr": LR} | changes
    return align(AlignConfig.model_validate(settings), train, tokens, out, seed=1, progress=QUIET, precision="float32")


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, bytes]:
    tensors = load_file(out / "SFT" / "model" / "model.safetensors")
    return {name: tensor.tobytes() for name, tensor in tensors.items()}


def stop_at_step(monkeypatch, step: int) -> None:
    """SIGINT arrives while the given step is computed."""
    count = TrainingState.count

    def count_and_signal(self, *arguments):
        count(self, *arguments)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingState, "count", count_and_signal)


def test_tuning_lowers_the_loss_and_leaves_a_model_that_loads(rows_file, train, tokens, tmp_path):
    result = run(train, tokens, tmp_path / "align", epochs=6)
    assert result == json.loads((tmp_path / "align" / "align.json").read_text())
    assert losses(tmp_path / "align")[-1] < 0.8 * losses(tmp_path / "align")[0]
    assert load_model(tmp_path / "align" / result["final_model"]).config.layers == 1
    assert (tmp_path / "align" / "SFT" / "model" / "tokenizer.json").is_file()


def test_tuning_with_adapters_changes_their_matrices_only(rows_file, train, tokens, tmp_path):
    lora = {"rank": 4, "alpha": 16, "targets": ["out", "down"]}
    result = run(train, tokens, tmp_path / "align", epochs=6, lora=lora)
    assert losses(tmp_path / "align")[-1] < losses(tmp_path / "align")[0]
    before = load_file(train / "CAT" / "model" / "model.safetensors")
    after = weights(tmp_path / "align")
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if tensor.tobytes() != after[name]}
    assert changed == {"transformer.h.0.attn.c_proj.weight", "transformer.h.0.mlp.c_proj.weight"}
    assert result["parameters"] == count_parameters(load_model(tmp_path / "align" / "SFT" / "model"))


def test_align_json_says_what_was_used(rows_file, train, tokens, tmp_path):
    rows = [row(number) for number in range(24)]
    rows[0]["review"]["status"], rows[1]["review"]["status"] = "rejected", "approved"
    write_rows(rows_file, rows)
    result = run(train, tokens, tmp_path / "align")
    assert result["examples"] == 15 and result["left_out"] == {"review": 1, "too_long": 0}
    assert result["review"] == {"unreviewed": 14, "approved": 1} and result["licenses"] == {"CC0-1.0": 15}
    assert sum(result["by_kind"].values()) == sum(result["by_language"].values()) == 15
    assert set(result["by_concern"]) <= {"harm", "cyber", "cbrn", "illegal", "privacy", "evasion"}
    assert result["final_model"] == "SFT/model" and result["enabled"] is True
    assert (tmp_path / "align" / result["base_model"]).resolve() == (train / "CAT" / "model").resolve()
    assert result["epochs"] >= 2 == result["epochs_asked"]
    assert 0 < result["response_tokens"] < result["tokens"] == result["phases"][0]["tokens"]


def test_test_split_is_not_trained_on(rows_file, train, tokens, tmp_path):
    first = run(train, tokens, tmp_path / "a")
    rows = [row(number) for number in range(24)]
    write_rows(rows_file, [{**r, "response": "Another answer."} if r["split"] == "test" else r for r in rows])
    assert first["examples"] == sum(r["split"] == "train" for r in rows)
    run(train, tokens, tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_too_long_examples_are_truncated_and_counted(rows_file, train, tokens, tmp_path):
    write_rows(rows_file, [row(0, response="word " * 500), row(1), row(3, instruction="word " * 500)])
    result = run(train, tokens, tmp_path / "align")
    assert (result["examples"], result["truncated"], result["left_out"]["too_long"]) == (2, 1, 1)


def test_second_call_changes_nothing(rows_file, train, tokens, tmp_path):
    first = run(train, tokens, tmp_path / "align")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "align" / "SFT").rglob("*") if path.is_file()}
    metrics = (tmp_path / "align" / "metrics.jsonl").read_bytes()
    assert run(train, tokens, tmp_path / "align") == first
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "align" / "SFT").rglob("*") if path.is_file()}
    assert before == after and metrics == (tmp_path / "align" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("step", [1, 3])
def test_stopped_tuning_resumes_bit_for_bit(rows_file, train, tokens, tmp_path, monkeypatch, step):
    replay = {"share": 0.3}
    whole = run(train, tokens, tmp_path / "whole", replay=replay)
    with monkeypatch.context() as patch:
        stop_at_step(patch, step)
        with pytest.raises(StoppedByUser):
            run(train, tokens, tmp_path / "parts", replay=replay)
    assert len(losses(tmp_path / "parts")) == step
    parts = run(train, tokens, tmp_path / "parts", replay=replay)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert whole["response_tokens"] == parts["response_tokens"] and whole["epochs"] == parts["epochs"]


def test_edited_settings_start_anew_and_keep_the_old_model_aside(rows_file, train, tokens, tmp_path):
    out = tmp_path / "align"
    run(train, tokens, out)
    run(train, tokens, out, epochs=1)
    assert len(list((out / "superseded").glob("SFT-*/model/model.safetensors"))) == 1
    run(train, tokens, tmp_path / "fresh", epochs=1)
    assert losses(out) == losses(tmp_path / "fresh") and weights(out) == weights(tmp_path / "fresh")


def test_another_trained_model_starts_anew(rows_file, train, tokens, tmp_path):
    out = tmp_path / "align"
    run(train, tokens, out)
    other = write_trained(tmp_path / "other", tokens, seed=5)
    run(other, tokens, out)
    assert list((out / "superseded").glob("SFT-*"))
    run(other, tokens, tmp_path / "fresh")
    assert weights(out) == weights(tmp_path / "fresh")


def test_deleted_model_comes_back_from_the_checkpoint(rows_file, train, tokens, tmp_path):
    out = tmp_path / "align"
    run(train, tokens, out)
    before = weights(out)
    for path in (out / "SFT" / "model").iterdir():
        path.unlink()
    (out / "SFT" / "model").rmdir()
    run(train, tokens, out)
    assert weights(out) == before and not (out / "superseded").exists()


def test_disabled_points_back_at_the_trained_model(rows_file, train, tokens, tmp_path):
    out = tmp_path / "align"
    run(train, tokens, out)
    result = run(train, tokens, out, enabled=False)
    assert result["enabled"] is False and not Path(result["final_model"]).is_absolute()
    assert (out / result["final_model"]).resolve() == (train / "CAT" / "model").resolve()
    assert not (out / "SFT").exists() and list((out / "superseded").glob("SFT-*"))
    assert not (out / "metrics.jsonl").read_text()


def test_extra_files_are_trained_on_too(rows_file, train, tokens, tmp_path):
    mine = write_rows(tmp_path / "mine.jsonl", [row(100, split="train"), row(101, split="train")])
    assert run(train, tokens, tmp_path / "a", data=[str(mine)])["examples"] == 18


def test_replay_mixes_pretraining_text_in_by_share(rows_file, train, tokens, tmp_path):
    result = run(train, tokens, tmp_path / "align", replay={"share": 0.4})
    (phase,) = result["phases"]
    assert phase["mixture"] == pytest.approx({"safety": 0.6, "notes": 0.4})
    by_domain = phase["tokens_by_domain"]
    assert abs(by_domain["notes"] - 0.4 * phase["tokens"]) <= phase["sequence_length"]
    assert result["epochs"] >= 2 and result["replay"] == {"share": 0.4, "mixture": {"notes": 1.0}}


def test_warm_up_longer_than_the_phase_is_cut(rows_file, train, tokens, tmp_path):
    result = run(train, tokens, tmp_path / "align", lr={**LR, "warmup": "500 steps"})
    assert result["phases"][0]["steps"] < 500


def test_step_is_a_whole_number_of_sequences(rows_file, train, tokens, tmp_path):
    result = run(train, tokens, tmp_path / "align", tokens_per_step=100)
    assert result["phases"][0]["tokens_per_step"] == 128


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"review": "approved"}, DataError, "16 unreviewed"),
        ({"sequence_length": 256}, RecipeError, "align.sequence_length 256 is more than the model's 128 positions"),
        ({"sequence_length": 4}, DataError, "no instruction leaves room"),
        ({"replay": {"share": 0.1, "mixture": {"note": 1.0}}}, RecipeError, "did you mean 'notes'"),
        ({"data": ["nowhere.jsonl"]}, DataError, "nowhere.jsonl cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_result_stays(
    rows_file, train, tokens, tmp_path, changes, error, said
):
    out = tmp_path / "align"
    run(train, tokens, out)
    before = weights(out)
    with pytest.raises(error, match=said):
        run(train, tokens, out, **changes)
    assert weights(out) == before
