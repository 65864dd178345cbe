"""A checkpoint is whole or not there; a damaged or hostile one is refused before anything is loaded."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.training import checkpoint
from aurora_m.training.checkpoint import (
    checkpoint_folder,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from aurora_m.workspace import AuroraError, DataError, fingerprint_file, write_json


def tensors(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "model.a": torch.randn(5, 7),
        "model.b": torch.randn(3).bfloat16(),
        "optimizer.a.step": torch.tensor(float(seed)),
        "random.cpu": torch.get_rng_state(),
    }


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    record = {"step": 3, "loss": 0.1 + 0.2, "rows": [{"x": None}]}
    save_checkpoint(tmp_path / "step-1", tensors(1), record)
    live = tensors(2)
    loaded = load_checkpoint(tmp_path / "step-1", live)
    assert all(torch.equal(live[name], tensor) for name, tensor in tensors(1).items())
    assert {name: loaded[name] for name in record} == record


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "state.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_damage_is_found_before_anything_is_loaded(tmp_path, name, damage):
    folder = tmp_path / "step-1"
    save_checkpoint(folder, tensors(1), {})
    assert files_of(folder) == [".metadata", "__0_0.distcp", "state.json"]
    content = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    elif damage == "truncated":
        (folder / name).write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        (folder / name).write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    live = tensors(2)
    with pytest.raises(DataError, match="damaged"):
        load_checkpoint(folder, live)
    assert all(torch.equal(live[key], tensor) for key, tensor in tensors(2).items())


def test_a_checkpoint_of_another_model_is_refused_with_the_reason(tmp_path):
    save_checkpoint(tmp_path / "step-1", tensors(1), {})
    with pytest.raises(AuroraError, match=r"does not fit this model.*model\.c"):
        load_checkpoint(tmp_path / "step-1", tensors(1) | {"model.c": torch.zeros(2)})
    with pytest.raises(AuroraError, match="does not fit this model"):
        load_checkpoint(tmp_path / "step-1", tensors(1) | {"model.a": torch.zeros(5, 8)})


class Hostile:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/aurora-m-was-here"),))


def test_a_hostile_table_of_contents_runs_nothing(tmp_path):
    folder = tmp_path / "step-1"
    save_checkpoint(folder, tensors(1), {})
    (folder / ".metadata").write_bytes(pickle.dumps(Hostile()))
    record = json.loads((folder / "state.json").read_text())
    record["files"][".metadata"] = fingerprint_file(folder / ".metadata")
    (folder / "state.json").write_text(json.dumps(record))
    with pytest.raises(AuroraError, match="has no place in a checkpoint"):
        load_checkpoint(folder, tensors(2))
    assert not Path("/tmp/aurora-m-was-here").exists()


def test_a_full_disk_is_one_clear_message_and_leaves_nothing(tmp_path, monkeypatch):
    class Usage:
        free = 10_000

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(AuroraError, match=r"no room for checkpoint .*10KB are free"):
        save_checkpoint(tmp_path / "checkpoints" / "step-1", tensors(1), {})
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_failure_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "step-1", tensors(1), {"step": 1})

    def fail(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", fail)
    with pytest.raises(AuroraError, match="No space left on device"):
        save_checkpoint(tmp_path / "step-1", tensors(2), {"step": 2})
    assert load_checkpoint(tmp_path / "step-1", tensors(2))["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_the_newest_are_kept_and_half_written_ones_go(tmp_path):
    for step in (5, 10, 100):
        checkpoint_folder(tmp_path, step).mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step-00000007.incomplete").mkdir()
    prune_checkpoints(tmp_path, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010", "step-00000100"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def slow_kept(written: list[int], start: int, keep: int, keep_every: int | None) -> set[int]:
    """The rule, read from the list of all that were ever written (tokens, ascending)."""
    kept = set(written[-keep:])
    multiple = 0
    while keep_every and (multiple := multiple + keep_every) <= written[-1]:
        if multiple > start:
            kept.add(min(tokens for tokens in written if tokens >= multiple))
    return kept


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 50),
    st.lists(st.integers(1, 12), min_size=1, max_size=12),
    st.integers(1, 3),
    st.none() | st.integers(1, 30),
)
def test_what_is_kept_is_what_the_plain_rule_keeps(tmp_path_factory, start, gaps, keep, keep_every):
    folder, tokens, written = tmp_path_factory.mktemp("phase"), start, []
    for gap in gaps:
        tokens += gap
        written.append(tokens)
        record = {"format": 2, "files": {}, "tokens": tokens, "phase_tokens_by_domain": {"aa": tokens - start}}
        write_json(checkpoint_folder(folder, tokens) / "state.json", record)
        prune_checkpoints(folder, keep, keep_every)
        found = {int(path.name.removeprefix("step-")) for path in list_checkpoints(folder)}
        assert found == slow_kept(written, start, keep, keep_every)


def test_a_damaged_checkpoint_is_not_what_is_kept_for_good(tmp_path):
    for step in (10, 12, 14, 16):
        record = {"format": 2, "files": {}, "tokens": step, "phase_tokens_by_domain": {"aa": step}}
        write_json(checkpoint_folder(tmp_path, step) / "state.json", record)
    (checkpoint_folder(tmp_path, 10) / "state.json").write_text("{")
    prune_checkpoints(tmp_path, keep=1, keep_every=10)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000012", "step-00000016"]
