"""A growing batch: sizes as the slow rule gives them, whole sequences, and a run that may stop anywhere on the ramp."""

import os
import signal
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.training.synthetic import tiny_config, write_tokens
from tests.training.test_stage import go, ledger, metrics, same_run

from aurora_m.training import ParallelConfig, PhaseConfig, StoppedByUser, build_segments
from aurora_m.training.parallel import check_phase
from aurora_m.training.state import TrainingState
from aurora_m.workspace import RecipeError, read_json

PHASE = {
    "name": "CAP",
    "tokens": 20_000,
    "mixture": {"aa": 1.0},
    "sequence_length": 10,
    "tokens_per_step": {"from": 40, "to": 200, "over": "8K"},
    "lr": {"peak": 1e-3},
}


def phase(**changes) -> PhaseConfig:
    return PhaseConfig.model_validate(PHASE | changes)


def step_by_step(to: int, start: int, over: int, by: int, steps: int) -> list[int]:
    """Tokens before each step, from the rule alone."""
    ends = [0]
    for _ in range(steps):
        ends.append(ends[-1] + min(to, start + by * ((to - start) // by * ends[-1] // over)))
    return ends


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 12), st.integers(1, 3000))
def test_steps_are_those_of_the_rule(start, by, increments, over):
    assume(increments or by == 1)
    to = start + by * increments
    size = {"from": start, "to": to, "over": over, "by": by} if increments else to
    one = phase(sequence_length=1, tokens=5000, tokens_per_step=size)
    sizes, expected = one.step_sizes, step_by_step(to, start, over, by, 5001)
    steps = one.steps
    assert [sizes.tokens(step) for step in range(300)] == expected[:300]
    assert [sizes.size(step) for step in range(300)] == [b - a for a, b in pairwise(expected[:301])]
    assert (
        abs(one.step_tokens - 5000) <= min(abs(tokens - 5000) for tokens in expected[1:]) == abs(expected[steps] - 5000)
    )


def test_a_ramp_rises_by_what_divides_its_ends_and_warms_up_in_its_own_steps():
    one = phase(lr={"peak": 1e-3, "warmup": "60 steps"})
    assert [one.step_sizes.size(step) for step in (0, 49, 50, 74, 75, 91, 92, 104, 105)] == [
        *(40, 40, 80, 80, 120, 120, 160, 160, 200),
    ]
    assert (one.sequences_per_step, one.sequences_together) == (20, 4)
    assert one.warmup_tokens == 50 * 40 + 10 * 80
    assert (
        build_segments([one, one.model_copy(update={"name": "next"})])[1].start == one.step_tokens == 19_920
        and one.steps == 164
    )


def test_a_ramp_is_written_as_it_was_read():
    one = phase(tokens_per_step={"from": 40, "to": 200, "over": "8K", "by": 80})
    assert one.model_dump(mode="json")["tokens_per_step"] == {"from": 40, "to": 200, "over": 8000, "by": 80}
    assert PhaseConfig.model_validate(phase().model_dump(mode="json")) == phase()
    assert PhaseConfig.model_validate_json(one.model_dump_json(exclude_defaults=True)) == one


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"from": 45, "to": 200, "over": 100}, "tokens_per_step from 45 is not a multiple.*nearest is 40"),
        ({"from": 40, "to": 205, "over": 100}, "tokens_per_step to 205 is not a multiple"),
        ({"from": 40, "to": 200, "over": 100, "by": 15}, "tokens_per_step by 15 is not a multiple"),
        ({"from": 40, "to": 200, "over": 100, "by": 30}, "does not get from 40 to 200 by 30"),
        ({"from": 200, "to": 40, "over": 100}, "a batch grows"),
        ({"from": 40, "to": 200}, "has from, to; expected a number, or from, to, over"),
        ({"from": 40, "to": 200, "over": 100, "until": 3}, "has from, to, over, until; expected"),
        ({"from": "few", "to": 200, "over": 100}, "'few' is not a quantity"),
    ],
)
def test_a_ramp_that_cannot_be_meant_is_refused(size, message):
    with pytest.raises(ValidationError, match=message):
        phase(tokens_per_step=size)


def test_the_ranks_must_divide_every_size():
    check_phase(phase(), ParallelConfig(), 4)
    with pytest.raises(RecipeError, match="steps of a multiple of 4 sequences cannot be dealt to 8.*a multiple of 80"):
        check_phase(phase(), ParallelConfig(), 8)


def ramped():
    phases = [one.model_dump(exclude_unset=True) for one in tiny_config().phases]
    phases[0] |= {"tokens": 2000, "tokens_per_step": {"from": 64, "to": 256, "over": 1000}}
    return tiny_config(phases=phases)


def test_a_run_may_stop_anywhere_on_the_ramp(tmp_path, monkeypatch):
    tokens = write_tokens(tmp_path / "tokens")
    go(tokens, tmp_path / "whole", ramped())
    rows = [row for row in metrics(tmp_path / "whole") if row["phase"] == "base"]
    base = ramped().phases[0]
    ends = step_by_step(256, 64, 1000, 64, base.steps)[1:]
    assert [row["tokens"] for row in rows] == ends and len({b - a for a, b in pairwise(ends)}) == 4
    assert [row["lr"] for row in rows] == [build_segments([base])[0].rate(end) for end in ends]
    due = [i + 1 for i, end in enumerate(ends) if end >= 1000 > end - base.step_sizes.size(i)]
    assert sorted({row["step"] for row in ledger(tmp_path / "whole") if row["phase"] == "base"}) == [0, *due, len(ends)]
    facts = read_json(tmp_path / "whole" / "train.json")["phases"][0]
    assert (facts["tokens"], facts["first_tokens_per_step"], facts["tokens_per_step"]) == (ends[-1], 64, 256)

    pending, count = [3, 7, 9], TrainingState.count

    def count_and_stop(self, *arguments):
        count(self, *arguments)
        if pending and self.step == pending[0]:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainingState, "count", count_and_stop)
    while pending:
        with pytest.raises(StoppedByUser):
            go(tokens, tmp_path / "stopped", ramped())
        pending.pop(0)
    go(tokens, tmp_path / "stopped", ramped())
    same_run(tmp_path / "whole", tmp_path / "stopped")
