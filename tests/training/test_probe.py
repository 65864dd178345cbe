"""The probe: its forecasts against the equation that its trials were made of, its trials in real runs, its mistakes."""

import math

import numpy as np
import pytest
from tests.heard import Heard
from tests.training.synthetic import tiny_base, tiny_config, write_tokens
from tests.training.test_stage import go

from aurora_m.training import PhaseConfig, Trials, describe_probe, probe, segment_of
from aurora_m.training.forgetting_model import Course, _solve
from aurora_m.training.guardrails_config import GuardrailsConfig
from aurora_m.training.rate_course import RateCourse
from aurora_m.training.trials import choose, guarded_phase, trial_phase
from aurora_m.workspace import RecipeError

CONSTANTS = {"en": (0.12, 2.0, 50.0, 0.01, 1e-9), "code": (0.4, 2.0, 40.0, 0.015, 1e-9)}
FACTORS = (1.0, 0.4)


def whole_phase() -> PhaseConfig:
    return PhaseConfig.model_validate(
        {
            "name": "CAP",
            "tokens": 4_096_000,
            "mixture": {"en": 0.1, "code": 0.1, "fi": 0.3, "hi": 0.5},
            "sequence_length": 512,
            "tokens_per_step": 2048,
            "lr": {"warmup": "20 steps", "peak": 1e-3, "to": 1e-4},
        }
    )


def live(constants, rates: RateCourse, end: int, own: float, total: float) -> tuple[np.ndarray, np.ndarray]:
    points = rates.points(0, end, [])
    progress, rate = rates.between(points)
    course = Course(progress, rate, np.full(len(progress), own), np.full(len(progress), total))
    return points[1:], _solve(np.array([constants]), np.zeros(1), course)[0][:, 0]


def made_up_trials(guardrails, phase, whole) -> list[dict]:
    results = []
    for factor in FACTORS:
        for share in (0.0, 0.15, 0.4):
            trial = trial_phase(guardrails, phase, 0.1, share, factor)
            end = trial.steps * trial.tokens_per_step
            rates = RateCourse(segment_of(trial), 0, end, unit=whole)
            ledger = []
            for domain, constants in CONSTANTS.items():
                own = trial.mixture.get(domain, 0.0)
                places, excess = live(constants, rates, end, own, share)
                for place in places[9::10].tolist():
                    change = math.expm1(excess[list(places).index(place)])
                    ledger.append({"tokens": place, "domain": domain, "bpb": 1 + change, "change": change})
            progress = np.cumsum(rates.between(places_of := np.r_[0, places])[0]) * (1 - share)
            for place in places[9::10].tolist():
                at = list(places_of).index(place) - 1
                for domain in ("fi", "hi"):
                    bpb = math.exp(1.0 - 0.2 * math.log(progress[at] + 0.02))
                    ledger.append({"tokens": place, "domain": domain, "bpb": bpb, "change": 0.0})
            rows = [row | {"change_stderr": 0.001} for row in ledger]
            results.append({"phase": trial.model_dump(mode="json"), "ledger": rows, "seconds": 1.0})
    return results


def test_the_choice_holds_the_budget_in_the_plant_the_trials_were_made_of():
    guardrails = GuardrailsConfig.model_validate({"en": "3%", "code": "3%"})
    phase = whole_phase()
    segment, end = segment_of(phase), phase.steps * phase.tokens_per_step
    whole = RateCourse(segment, 0, end)
    choices = choose(guardrails, phase, segment, 0, made_up_trials(guardrails, phase, whole), FACTORS)
    assert [choice.feasible for choice in choices] == [True, True]
    best = choices[0]
    assert best.shares["en"] < best.shares["code"] < 0.6
    total = sum(best.shares.values())
    for domain, constants in CONSTANTS.items():
        _, excess = live(constants, whole, end, best.shares[domain], total)
        middle, low, high = best.forecast[domain]
        assert math.expm1(excess[-1]) <= 0.033
        assert low - 0.005 <= math.expm1(excess[-1]) <= high + 0.005 and low <= middle <= high
    # Learning follows 0.2 powers of the progress on new text.
    by_factor = {choice.rate_factor: choice for choice in choices}
    spent = 0.4 * (1 - sum(by_factor[0.4].shares.values()))
    assert by_factor[0.4].learned[0] == pytest.approx((1.02 / (spent + 0.02)) ** 0.2 - 1, abs=0.02)


def test_budgets_that_nothing_holds_are_said_to_be_so():
    guardrails = GuardrailsConfig.model_validate({"budget": {"en": "0.01%", "code": "0.01%"}})
    phase = whole_phase()
    segment = segment_of(phase)
    whole = RateCourse(segment, 0, phase.steps * phase.tokens_per_step)
    choices = choose(guardrails, phase, segment, 0, made_up_trials(guardrails, phase, whole), FACTORS)
    assert not any(choice.feasible for choice in choices)
    assert all(choice.shares["code"] is None for choice in choices)


def test_a_trial_deals_replay_as_the_phase_does_and_keeps_the_others_proportions():
    guardrails = GuardrailsConfig.model_validate({"en": "1%", "code": "1%"})
    trial = trial_phase(guardrails, whole_phase(), 0.05, 0.4, 0.5)
    assert trial.mixture == pytest.approx({"en": 0.2, "code": 0.2, "fi": 0.225, "hi": 0.375})
    assert (trial.lr.peak, trial.lr.to) == pytest.approx((5e-4, 5e-5))
    assert trial.steps == 100
    with pytest.raises(RecipeError, match="--part 1% or more"):
        trial_phase(guardrails, whole_phase(), 0.001, 0.4, 0.5)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("probe") / "tokens")


def test_trials_run_once_and_their_weights_are_not_kept(tokens, tmp_path):
    go(tokens, tmp_path / "train")
    phases = tiny_config().model_dump()["phases"]
    phases[1]["tokens"] = 192 * 400
    config = tiny_config(guardrails={"aa": "5%"}, phases=phases)
    assert guarded_phase(config)[0].name == "CAP"

    def run() -> dict:
        return probe(
            config,
            tiny_base(),
            tokens,
            tmp_path / "probe",
            seed=1,
            base_folder=tmp_path / "train" / "base" / "model",
            trials=Trials(0.05, (0.0, 0.3), (1.0,)),
            progress=Heard(),
        )

    result = run()
    assert len(result["trials"]) == 2 and len(result["choices"]) == 1
    assert sorted(path.suffix for path in (tmp_path / "probe").iterdir()) == [".json"] * 3
    assert run() == result
    assert describe_probe(result)


def test_a_probe_without_a_budget_is_refused(tokens, tmp_path):
    with pytest.raises(RecipeError, match="train.guardrails"):
        probe(
            tiny_config(),
            tiny_base(),
            tokens,
            tmp_path,
            seed=1,
            base_folder=tmp_path,
            trials=Trials(),
            progress=Heard(),
        )
