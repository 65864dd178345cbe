"""A change redoes its phase and those after it, and what was there is moved aside."""

import json

import pytest
from tests.training.synthetic import tiny_config

from aurora_m.training import chain as chain_module
from aurora_m.training import chain_fingerprints, fingerprint_large, set_aside
from aurora_m.training.chain import mark_phase
from aurora_m.workspace import Progress

QUIET = Progress(quiet=True)


def changed(index: int, **changes):
    phases = [phase.model_dump() for phase in tiny_config().phases]
    for phase in phases:
        phase["lr"] = {key: value for key, value in phase["lr"].items() if key != "continues"}
    phases[index] |= changes
    return tiny_config(phases=phases).phases


def test_a_phase_changes_itself_and_what_follows():
    before = chain_fingerprints({"seed": 1}, changed(0))
    assert chain_fingerprints({"seed": 1}, changed(0)) == before
    later = chain_fingerprints({"seed": 1}, changed(1, tokens=4000))
    assert [a == b for a, b in zip(before, later, strict=True)] == [True, True, False]
    earlier = chain_fingerprints({"seed": 1}, changed(0, tokens=4000))
    assert [a == b for a, b in zip(before, earlier, strict=True)] == [True, False, False]
    start = chain_fingerprints({"seed": 2}, changed(0))
    assert not any(a == b for a, b in zip(before, start, strict=True))


def test_superseded_phases_are_moved_with_their_metrics(tmp_path):
    for name, mark in (("base", "a" * 64), ("CAP", "b" * 64), ("CAT", "c" * 64)):
        mark_phase(tmp_path, name, mark)
        (tmp_path / name / "model").mkdir()
    rows = [{"phase": "base", "step": 1}, {"phase": "CAP", "step": 2}, {"phase": "CAP", "step": 3}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"phase": "C')
    set_aside(tmp_path, [("base", "a" * 64), ("CAP", "d" * 64)], QUIET)
    assert sorted(path.name for path in (tmp_path / "superseded").iterdir()) == ["CAP-bbbbbbbb", "CAT-cccccccc"]
    assert (tmp_path / "base" / "model").exists() and not (tmp_path / "CAP").exists()
    kept = (tmp_path / "superseded" / "CAP-bbbbbbbb" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in kept] == [2, 3]


def test_superseding_twice_overwrites_nothing(tmp_path):
    for _ in range(2):
        mark_phase(tmp_path, "CAP", "b" * 64)
        set_aside(tmp_path, [("CAP", "d" * 64)], QUIET)
    assert len(list((tmp_path / "superseded").iterdir())) == 2


@pytest.mark.parametrize("whole", [True, False])
def test_the_fingerprint_of_large_files_sees_names_sizes_and_contents(tmp_path, monkeypatch, whole):
    if not whole:
        monkeypatch.setattr(chain_module, "_WHOLE_FILE_BYTES", 10)
        monkeypatch.setattr(chain_module, "_SAMPLE_BYTES", 8)
    (tmp_path / "a.bin").write_bytes(bytes(1000))
    first = fingerprint_large(tmp_path)
    assert fingerprint_large(tmp_path) == first
    seen = {first}
    (tmp_path / "a.bin").write_bytes(bytes(1001))
    seen.add(fingerprint_large(tmp_path))
    (tmp_path / "a.bin").write_bytes(bytes(995) + b"12345")
    seen.add(fingerprint_large(tmp_path))
    (tmp_path / "a.bin").rename(tmp_path / "b.bin")
    seen.add(fingerprint_large(tmp_path))
    assert len(seen) == 4
