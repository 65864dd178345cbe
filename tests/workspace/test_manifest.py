"""A manifest exists only for a stage that ended well."""

import pytest

from aurora_m.workspace import forget_manifest, load_manifest, record_stage, stage_fingerprint


def test_a_stage_is_recorded_with_what_made_it(tmp_path):
    with record_stage(tmp_path, "curate", {"seed": 1}, {"a.jsonl": "abc"}) as manifest:
        manifest.counts = {"documents": 3}
    loaded = load_manifest(tmp_path, "curate")
    assert loaded is not None
    assert loaded.fingerprint == stage_fingerprint("curate", {"seed": 1}, {"a.jsonl": "abc"})
    assert loaded.counts == {"documents": 3}
    assert loaded.versions["python"].startswith("3.")
    assert loaded.peak_memory_bytes > 1_000_000


def test_a_failed_stage_is_not_recorded(tmp_path):
    with pytest.raises(RuntimeError), record_stage(tmp_path, "curate", {}, {}):
        raise RuntimeError
    assert load_manifest(tmp_path, "curate") is None


def test_a_forgotten_stage_counts_as_not_done(tmp_path):
    with record_stage(tmp_path, "curate", {}, {}):
        pass
    forget_manifest(tmp_path, "curate")
    assert load_manifest(tmp_path, "curate") is None
