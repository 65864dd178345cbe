"""The controller against a plant whose constants it does not know, and in real runs of the train stage."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.synthetic import tiny_base, tiny_config, write_tokens
from tests.training.test_stage import Heard, go, ledger, metrics

from aurora_m.training import PhaseConfig, StoppedByUser, TrainConfig, segment_of
from aurora_m.training import stage as stage_module
from aurora_m.training.forgetting_model import Course, History, Measurement, believe
from aurora_m.training.guardrails import Guardrails
from aurora_m.training.guardrails_config import GuardrailsConfig
from aurora_m.training.ledger import ledger_rows
from aurora_m.training.state import TrainingState
from aurora_m.workspace import AuroraError, RecipeError

TOKENS, PER_STEP = 1_000_000, 2048
NOISE = 0.003
EN, CODE = (0.15, 2.0, 60.0, 0.015, 0.0), (0.45, 2.0, 40.0, 0.03, 0.0)


@dataclass
class Plant:
    """A phase whose domains follow the equation with constants of their own, solved by many small Euler steps."""

    constants: dict[str, tuple[float, float, float, float, float]]
    config: GuardrailsConfig
    start_shares: dict[str, float] = field(default_factory=lambda: {"en": 0.125, "code": 0.125, "fi": 0.25, "hi": 0.5})
    measurements: int = 10
    seed: int = 0

    def run(self) -> "Plant":
        phase = PhaseConfig.model_validate(
            {
                "name": "CAP",
                "tokens": TOKENS,
                "mixture": self.start_shares,
                "sequence_length": 512,
                "tokens_per_step": PER_STEP,
                "lr": {"warmup": "20 steps", "peak": 1e-3, "to": 1e-4},
            }
        )
        segment = segment_of(phase)
        guardrails = Guardrails(self.config, phase, segment, 0)
        rates = np.array([segment.rate((step + 1) * PER_STEP) for step in range(phase.steps)]) / 1e-3
        progress = rates / rates.sum()
        random = np.random.default_rng(self.seed)
        self.shares = [dict(self.start_shares)]
        mixtures = [{"phase": "CAP", "tokens": 0, "shares": self.start_shares}]
        rows: list[dict] = []
        self.decisions: list[dict] = []
        forgotten, self.worst = dict.fromkeys(self.constants, 0.0), dict.fromkeys(self.constants, 0.0)
        self.replay, factor = 0.0, 1.0
        due = {round(phase.steps * (n + 1) / self.measurements) for n in range(self.measurements)}
        for step in range(1, phase.steps + 1):
            shares = mixtures[-1]["shares"]
            total = sum(shares.get(domain, 0.0) for domain in self.constants)
            self.replay += total / phase.steps
            self.end = {}
            for domain, (a, b, c, k, g) in self.constants.items():
                for _ in range(4):
                    drift = a * (1 - total) * np.sqrt(rates[step - 1] * factor)
                    repair = c * shares.get(domain, 0.0) * (forgotten[domain] + g)
                    slope = drift - b * forgotten[domain] - repair
                    forgotten[domain] += slope * progress[step - 1] * factor / 4
                self.end[domain] = float(np.expm1(forgotten[domain] + k * rates[step - 1] * factor))
                self.worst[domain] = max(self.worst[domain], self.end[domain])
            if step not in due:
                continue
            tokens = step * PER_STEP
            for domain, change in self.end.items():
                noisy = change + NOISE * float(random.standard_normal())
                rows.append({"domain": domain, "tokens": tokens, "change": noisy, "change_stderr": NOISE})
            decision = guardrails.decide(rows, mixtures, self.decisions, step=step, tokens=tokens)
            assert guardrails.decide(rows, mixtures, self.decisions, step=step, tokens=tokens) == decision
            assert sum(decision.row()["shares"].values()) == pytest.approx(1, abs=1e-9)
            self.decisions.append(decision.row())
            factor = decision.rate_factor
            self.shares.append(decision.shares)
            mixtures.append({"phase": "CAP", "tokens": tokens, "shares": decision.shares})
        return self

    @property
    def given_up(self) -> list[tuple[str, float]]:
        return [(domain, row["progress"]) for row in self.decisions for domain in row["infeasible"]]


def guarded(budget, **changes) -> GuardrailsConfig:
    return GuardrailsConfig.model_validate({"budget": dict.fromkeys(("en", "code"), budget), **changes})


@pytest.mark.parametrize("budget", [0.015, 0.02, 0.03, 0.05])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_budgets_are_held_by_the_end(budget, seed):
    plant = Plant({"en": EN, "code": CODE}, guarded(budget), seed=seed).run()
    assert max(plant.end.values()) <= budget + NOISE / 2
    assert not plant.given_up


def test_a_base_that_still_improves_needs_no_more_than_the_floor():
    plant = Plant({"en": (0.02, 1.0, 60.0, 0.001, 0.02), "code": (0.02, 1.0, 60.0, 0.001, 0.02)}, guarded(0.02)).run()
    assert max(plant.end.values()) < 0
    assert plant.shares[-1]["en"] + plant.shares[-1]["code"] < 0.06


def test_a_larger_budget_costs_less_replay_and_a_domain_that_forgets_less_gets_less():
    plants = [Plant({"en": EN, "code": CODE}, guarded(budget)).run() for budget in (0.015, 0.03, 0.06)]
    assert plants[0].replay > plants[1].replay > plants[2].replay
    for plant in plants:
        en, code = (sum(shares[domain] for shares in plant.shares) for domain in ("en", "code"))
        assert en < code / 1.5


def test_the_bump_of_the_raised_rate_winds_nothing_up():
    """A domain that is over its budget in mid-phase only because the rate is high keeps no replay for it."""
    bump = {"en": (0.02, 2.0, 60.0, 0.05, 0.0), "code": (0.02, 2.0, 40.0, 0.05, 0.0)}
    plant = Plant(bump, guarded(0.02, transient=None)).run()
    assert max(plant.worst.values()) > 0.04
    assert max(plant.end.values()) <= 0.02
    totals = [shares["en"] + shares["code"] for shares in plant.shares]
    assert totals[-1] < 0.1 < max(totals)


def test_the_limit_on_the_way_buys_replay_earlier():
    loose, tight = (Plant({"en": EN, "code": CODE}, guarded(0.05, transient=limit)).run() for limit in (None, 1.0))
    assert tight.replay > loose.replay


def test_what_cannot_be_held_is_given_up_in_the_first_third_with_what_it_would_take():
    hopeless = {"en": EN, "code": (1.5, 0.5, 10.0, 0.05, 0.0)}
    plant = Plant(hopeless, guarded(0.01)).run()
    assert plant.given_up and plant.given_up[0][0] == "code" and plant.given_up[0][1] <= 1 / 3
    assert [domain for domain, _ in plant.given_up].count("code") == 1
    row = next(row for row in plant.decisions if row["infeasible"])
    assert row["domains"]["code"]["probability"] < 0.1


def test_a_lower_rate_is_the_last_lever():
    hopeless = {
        "en": (0.01, 0.5, 5.0, 0.3, 0.0),
        "code": (0.01, 0.5, 5.0, 0.3, 0.0),
    }  # almost all of it the rate's own cost
    kept = Plant(hopeless, guarded(0.01, infeasible="continue")).run()
    lowered = Plant(hopeless, guarded(0.01, infeasible="lower rate")).run()
    assert kept.decisions[-1]["rate_factor"] == 1 > lowered.decisions[-1]["rate_factor"]
    assert lowered.end["code"] < kept.end["code"]


def test_a_lower_rate_that_would_repair_too_slowly_is_left_alone():
    hopeless = {"en": EN, "code": (1.0, 1.0, 20.0, 0.06, 0.0)}
    kept = Plant(hopeless, guarded(0.01, infeasible="continue")).run()
    lowered = Plant(hopeless, guarded(0.01, infeasible="lower rate")).run()
    assert lowered.end["code"] < kept.end["code"] + 0.005


def test_floor_and_ceiling_hold():
    plant = Plant({"en": EN, "code": CODE}, guarded(0.001, ceiling=0.3, floor=0.02, infeasible="continue")).run()
    for shares in plant.shares[1:]:
        assert min(shares["en"], shares["code"]) >= 0.02 - 1e-9
        assert shares["en"] + shares["code"] <= 0.3 + 0.02
    assert plant.shares[-1]["fi"] / plant.shares[-1]["hi"] == pytest.approx(0.5)


@settings(max_examples=20, deadline=None)
@given(
    constants=st.tuples(
        st.floats(0.02, 2), st.floats(0.3, 8), st.floats(5, 200), st.floats(0.002, 0.08), st.floats(0.0, 0.02)
    ),
    share=st.floats(0.02, 0.4),
)
def test_a_belief_forecasts_a_plant_within_its_interval(constants, share):
    """From exact measurements of the first half, the end lies where 98 % of the belief does, or near it."""
    n = 40
    rate = np.linspace(1, 0.1, n)
    course = Course(rate / rate.sum(), rate, np.full(n, share), np.full(n, share))
    a, b, c, k, g = constants
    forgotten, path = 0.0, []
    for progress, one in zip(course.progress, rate, strict=True):
        decay = b + c * share
        rest = (a * (1 - share) * np.sqrt(one) - c * share * g) / decay
        forgotten = rest + (forgotten - rest) * np.exp(-decay * progress)
        path.append(forgotten + k * one)
    first = Course(*(part[: n // 2] for part in (course.progress, course.rate, course.own, course.all_replay)))
    second = Course(*(part[n // 2 :] for part in (course.progress, course.rate, course.own, course.all_replay)))
    seen = [Measurement(place, path[place - 1], 0.001) for place in (5, 10, 15, 20)]
    history = History(0.0, 0.0, first, seen)
    standing = believe([history]).after(history)
    end, worst = standing.forecast(second)
    low, high = standing.quantile(end, 0.01), standing.quantile(end, 0.99)
    margin = 0.01 + 0.05 * abs(path[-1])
    assert low - margin <= path[-1] <= high + margin
    assert (worst >= end - 1e-12).all()


# ---- the recipe


def test_a_plain_mapping_is_the_budget():
    assert GuardrailsConfig.model_validate({"en": "1%", "code": "2%"}).budget == {"en": 0.01, "code": 0.02}


def test_replay_in_a_mixture_is_dealt_to_the_guarded_domains():
    raw = tiny_config().model_dump(exclude_unset=True)
    raw["phases"][1]["mixture"] = {"cc": 0.5, "replay": "30%", "bb": 0.2}
    config = TrainConfig.model_validate(raw | {"guardrails": {"aa": "5%", "bb": "5%"}})
    assert config.phases[1].mixture == pytest.approx({"cc": 0.5, "aa": 0.15, "bb": 0.35})
    with pytest.raises(ValueError, match="train.guardrails"):
        TrainConfig.model_validate(raw)


@pytest.mark.parametrize("wrong", [{"budget": {}}, {"budget": {"en": "0%"}}, {"en": "1%", "ceiling": 0.001}])
def test_guardrails_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        GuardrailsConfig.model_validate(wrong)


# ---- in a run


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("guarded") / "tokens")


def guarded_run(**guardrails) -> TrainConfig:
    return tiny_config(guardrails={"budget": {"aa": "1%"}, **guardrails})


def decisions(out) -> list[dict]:
    return [json.loads(line) for line in (out / "guardrails.jsonl").read_text().splitlines()]


def test_a_run_moves_replay_and_says_so(tokens, tmp_path):
    heard = Heard()
    facts = go(tokens, tmp_path, guarded_run(infeasible="continue"), progress=heard)
    rows = decisions(tmp_path)
    assert {row["phase"] for row in rows} == {"CAP"} and rows[-1]["progress"] == 1
    given_shares = {step: row["shares"]["aa"] for row in rows for step in [row["step"]]}
    dealt = {row["step"]: row["tokens_by_domain"]["aa"] for row in metrics(tmp_path)}
    first, second = sorted(given_shares)[:2]
    tokens_between = 192 * (second - first)
    assert dealt[second] - dealt[first] == pytest.approx(given_shares[first] * tokens_between, abs=64)
    assert any("guardrails" in line for line in heard.lines)
    assert facts["phases"][1]["tokens_by_domain"]["aa"] == dealt[22] - dealt[12]


def test_a_stop_changes_no_decision_and_no_bit(tokens, tmp_path, monkeypatch):
    config = guarded_run(infeasible="continue")
    go(tokens, tmp_path / "whole", config)
    count = TrainingState.count

    def stopping(self, *arguments):
        count(self, *arguments)
        if self.step == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "count", stopping)
        with pytest.raises((KeyboardInterrupt, StoppedByUser)):
            go(tokens, tmp_path / "stopped", config)
    go(tokens, tmp_path / "stopped", config)
    assert decisions(tmp_path / "whole") == decisions(tmp_path / "stopped")
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "stopped")
    assert ledger(tmp_path / "whole") == ledger(tmp_path / "stopped")


def forgetful(*arguments, **settings):
    """The ledger of a model that loses half of what it knew of aa in CAP: a tiny one on made-up text never does."""
    rows = ledger_rows(*arguments, **settings)
    lost = {"change": 0.5, "change_stderr": 0.001}
    return [row | lost if row["phase"] == "CAP" and row["domain"] == "aa" else row for row in rows]


def test_a_run_that_gives_up_stops_with_a_checkpoint_and_goes_on_when_told_to(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_module, "ledger_rows", forgetful)
    guardrails = {"budget": {"aa": "1%"}, "ceiling": 0.3}
    hopeless = tiny_config(guardrails=guardrails, ledger={"every": 192})
    with pytest.raises(AuroraError, match=r"guardrails: aa stands at \+50.0% .* Raise the budget"):
        go(tokens, tmp_path, hopeless)
    given_up = decisions(tmp_path)
    assert given_up[-1]["infeasible"] == ["aa"] and given_up[-1]["progress"] <= 0.5
    with pytest.raises(AuroraError, match="aa stands at"):  # again, at once, and nothing was trained
        go(tokens, tmp_path, hopeless)
    assert decisions(tmp_path) == given_up
    goes_on = tiny_config(guardrails={**guardrails, "infeasible": "continue"}, ledger={"every": 192})
    facts = go(tokens, tmp_path, goes_on)
    assert facts["phases"][1]["steps"] == 10
    assert decisions(tmp_path)[: len(given_up)] == given_up


def test_a_guarded_domain_must_be_measured_and_replayed(tokens, tmp_path):
    with pytest.raises(RecipeError, match="domain 'xx' has no held-out text"):
        go(tokens, tmp_path, tiny_config(guardrails={"xx": "1%"}), tiny_base())
