"""The forgetting ledger's plots start at the base and share one scale."""

import pytest

from aurora_m.release import RunFacts
from aurora_m.report.ledger import Track, _scale, ledger_section, read_tracks


def row(phase: str, tokens: int, bpb: float, base: float | None, domain: str = "fi") -> dict:
    change = None if base is None else bpb / base - 1
    fields = {"phase": phase, "step": tokens, "tokens": tokens, "domain": domain, "bpb": bpb, "base_bpb": base}
    return fields | {"change": change, "stderr": None, "documents": 1, "bytes": 10}


def test_plots_begin_where_the_base_ended(tmp_path):
    rows = [
        row("base", 0, 8.0, None),
        row("base", 50, 3.0, None),
        row("base", 100, 2.0, 2.0),
        row("CAP", 200, 1.5, 2.0),
    ]
    (track,) = read_tracks(RunFacts(tmp_path, ledger=rows))
    assert track.tokens == [100, 200]
    assert track.change == pytest.approx(-0.25)


def test_while_the_base_is_training_all_of_it_is_shown_without_a_base_line(tmp_path):
    facts = RunFacts(tmp_path, ledger=[row("base", 0, 8.0, None), row("base", 50, 3.0, None)])
    (track,) = read_tracks(facts)
    assert (track.tokens, track.base_bpb, track.change) == ([0, 50], None, None)
    section = ledger_section(facts, [("base", 0)])
    assert section is not None and "base" in section["blocks"][0]["panels"][0]["svg"]


def test_the_end_of_a_phase_and_the_start_of_the_next_are_one_measurement(tmp_path):
    rows = [row("CAP", 0, 2.0, 2.0), row("CAP", 100, 1.6, 2.0), row("CAT", 100, 1.6, 2.0), row("CAT", 200, 1.5, 2.0)]
    (track,) = read_tracks(RunFacts(tmp_path, ledger=rows))
    assert track.tokens == [0, 100, 200]


def test_a_long_ledger_is_thinned_and_keeps_its_last_value(tmp_path):
    rows = [row("CAP", n, 2.0 - n / 10_000, 2.0) for n in range(5_000)]
    (track,) = read_tracks(RunFacts(tmp_path, ledger=rows))
    assert len(track.tokens) < 400
    assert track.tokens[-1] == 4_999


def test_one_scale_holds_every_track_and_the_base_line():
    tracks = [Track("a", [0, 1], [2.0, 1.0], [0.1, 0.1], 2.0), Track("b", [0, 1], [1.0, 1.02], [0.0, 0.0], 1.0)]
    low, high = _scale(tracks)
    assert low < -0.55 and high > 0.05


def test_a_domain_that_never_moved_still_has_a_plot(tmp_path):
    section = ledger_section(RunFacts(tmp_path, ledger=[row("CAP", 0, 2.0, 2.0)]), [])
    assert section is not None and section["table"][0]["change"] == 0.0
