"""The learning rate is a pure function of tokens: tables of what it must be."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_m.training import PhaseConfig, build_segments, segment_of
from aurora_m.training.last_rate import read_last_rate, write_last_rate
from aurora_m.workspace import DataError, RecipeError


def phase(name="CAP", tokens=1000, **lr) -> PhaseConfig:
    return PhaseConfig(name=name, tokens=tokens, mixture={"aa": 1.0}, sequence_length=10, tokens_per_step=100, lr=lr)


HALF_COSINE = 0.5 * (1 + math.cos(math.pi / 2))


@pytest.mark.parametrize(
    ("lr", "tokens", "expected"),
    [
        ({"peak": 1.0, "warmup": 200}, 100, 0.5),
        ({"peak": 1.0, "warmup": "2 steps"}, 100, 0.5),
        ({"peak": 1.0, "warmup": 200}, 200, 1.0),
        ({"peak": 1.0, "warmup": 200}, 1000, 0.0),
        ({"peak": 1.0, "to": 0.2}, 1000, 0.2),
        ({"peak": 1.0, "to": 0.2}, 500, 0.2 + 0.8 * HALF_COSINE),
        ({"peak": 1.0, "to": 0.2, "warmup": 200}, 600, 0.2 + 0.8 * HALF_COSINE),
        ({"peak": 1.0, "decay": "linear"}, 250, 0.75),
        ({"peak": 1.0, "decay": "linear", "to": 0.1}, 1000, 0.1),
        ({"peak": 1.0, "decay": "1-sqrt"}, 250, 0.5),
        ({"peak": 1.0, "decay": "constant", "warmup": 100}, 900, 1.0),
        ({"peak": 1.0, "decay": "linear", "over": 4000}, 1000, 0.75),
        ({"peak": 1.0, "decay": "linear", "over": 500, "to": 0.1}, 900, 0.1),
        ({"peak": 1.0, "warmup": 1000, "over": 1000}, 1000, 1.0),
        ({"peak": 1.0, "warmup": 1000, "over": 1000}, 1001, 0.0),
        ({"peak": 1.0, "warmup": 200, "start": 0.4}, 100, 0.7),
        ({"peak": 1.0, "warmup": 200, "start": 0.4}, 200, 1.0),
        ({"peak": 1.0, "decay": "infinite", "over": 500, "to": 0.2}, 250, 0.2 + 0.8 * HALF_COSINE),
        ({"peak": 1.0, "decay": "infinite", "over": 500, "to": 0.2, "warmup": 100}, 500, 0.2),
        ({"peak": 1.0, "decay": "infinite", "over": 500, "to": 0.2}, 1000, 0.2),
    ],
)
def test_rates(lr, tokens, expected):
    assert segment_of(phase(**lr)).rate(tokens) == pytest.approx(expected, abs=1e-12)


def test_a_phase_that_continues_goes_on_down_the_slope():
    phases = [
        phase("base", 1000, peak=1.0, decay="linear"),
        phase("CAP", 3000, peak=1.0, decay="linear", over=5000),
        phase("CAT", 1000, continues=True),
    ]
    base, cap, cat = build_segments(phases)
    assert cat is cap and cap.start == 1000
    assert base.rate(1000) == 0
    assert [cap.rate(1000 + tokens) for tokens in (0, 2500)] == [1.0, 0.5]
    assert [cat.rate(tokens) for tokens in (4000, 5000)] == pytest.approx([0.4, 0.2])


def test_the_papers_schedule_stops_on_the_slope():
    step = 4_194_304
    cap = PhaseConfig.model_validate(
        {
            "name": "CAP",
            "tokens": 90_000 * step,
            "mixture": {"aa": 1},
            "sequence_length": 2048,
            "tokens_per_step": step,
            "lr": {"peak": 1e-4, "warmup": "2000 steps", "to": 1e-5, "over": 120_000 * step},
        }
    )
    segment = segment_of(cap)
    assert segment.rate(2000 * step) == pytest.approx(1e-4)
    assert segment.rate(103_900 * step) == pytest.approx(1.4071e-5, rel=1e-4)
    assert segment.rate(120_000 * step) == pytest.approx(1e-5)


def test_the_decay_ends_with_the_last_whole_step():
    assert segment_of(phase(tokens=1049, peak=1.0)).rate(1000) == 0.0


def test_an_infinite_schedule_stays_where_it_is_until_a_later_phase_anneals():
    phases = [
        phase("base", 1000, peak=1.0, warmup=100, decay="infinite", to=0.3, over=600),
        phase("CAP", 5000, continues=True),
        phase("CAT", 400, peak="last", decay="1-sqrt"),
    ]
    _, cap, cat = build_segments(phases)
    assert [cap.rate(tokens) for tokens in (600, 1000, 6000)] == [0.3, 0.3, 0.3]
    assert (cat.start, cat.peak, cat.rate(6100), cat.rate(6400)) == (6000, 0.3, pytest.approx(0.15), 0.0)


def test_a_phase_may_warm_up_again_from_the_rate_before_it_or_go_on_from_there():
    phases = [
        phase("base", 1000, peak=1.0, decay="linear", to=0.2),
        phase("CAP", 1000, peak=0.6, warmup=200, start="last", decay="linear", over=2200),
        phase("CAT", 1000, peak="last", decay="constant"),
    ]
    _, cap, cat = build_segments(phases)
    assert [cap.rate(1000 + tokens) for tokens in (0, 100, 200)] == pytest.approx([0.2, 0.4, 0.6])
    assert cat.rate(2100) == cap.rate(2000) == pytest.approx(0.36)


def test_the_rate_a_base_ended_with_is_taken_up_where_it_is_known(tmp_path):
    phases = [phase("CAP", 1000, peak=0.6, warmup=200, start="last")]
    assert read_last_rate(tmp_path) is None
    with pytest.raises(RecipeError, match="phase CAP: lr takes up the base's last rate, and the base has no"):
        build_segments(phases, None)
    # As the Trainer of transformers writes it.
    log = [{"learning_rate": 0.5, "loss": 2.0, "step": 1}, {"learning_rate": 0.1, "step": 2}, {"train_runtime": 1.0}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 2, "log_history": log}))
    assert build_segments(phases, read_last_rate(tmp_path))[0].rate(100) == pytest.approx(0.35)
    write_last_rate(tmp_path, 0.25)
    assert read_last_rate(tmp_path) == 0.25
    (tmp_path / "trainer_state.json").write_text("[]")
    with pytest.raises(DataError, match="has no list log_history"):
        read_last_rate(tmp_path)


@pytest.mark.parametrize(("to", "message"), [(0.0, "lr.peak is the last rate, 0,"), (0.5, "a decay to 0.7")])
def test_a_decay_cannot_begin_below_its_end(to, message):
    phases = [phase("base", 1000, peak=1.0, to=to), phase("CAP", 1000, peak="last", to=0.7)]
    with pytest.raises(RecipeError, match=message):
        build_segments(phases)


@given(
    st.sampled_from(["cosine", "linear", "constant", "1-sqrt"]),
    st.integers(0, 1000),
    st.integers(1, 20_000),
    st.floats(0, 1),
)
def test_rates_stay_between_zero_and_the_peak_and_fall_after_the_warmup(decay, warmup, tokens, to):
    segment = segment_of(phase(peak=1.0, warmup=warmup, decay=decay, to=to))
    assert 0 <= segment.rate(tokens) <= 1.0 + 1e-12
    if tokens >= warmup:
        assert segment.rate(tokens) >= segment.rate(tokens + 1) - 1e-12 and segment.rate(tokens) >= to - 1e-12
