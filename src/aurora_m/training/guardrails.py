"""Guardrails: replay shares, and where asked for the rate, so that guarded domains end a phase inside their budgets.

A decision is a pure function of the ledger, the mixtures so far and the recipe; the controller keeps nothing to
itself, so it can neither wind up nor lose anything at a stop. At each measurement it asks the equation of
`forgetting_model` how every guarded domain will stand at the phase's end, and gives each the least replay that holds
its budget with the wanted confidence and keeps the worst on the way under the looser limit for it. What no replay up
to the ceiling can hold is said, with what it would take.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .config import PhaseConfig
from .forgetting_model import DEFAULT_PRIOR, Course, History, Prior, Standing, believe, measurements_of
from .guardrails_config import GuardrailsConfig
from .rate_course import RateCourse
from .schedule import Segment

_PASSES = 3  # over the domains: each one's share depends a little on the others'
_HOPELESS = 0.25  # budgets that are held together with less than this probability at the ceiling ...
_TIMES = 2  # ... so many measurements in a row are given up,
_UNLIKELY = 0.5  # those of them that are held with less than this
_FACTORS = (0.8, 0.65, 0.5, 0.35, 0.25, 0.15)  # of the planned rate, tried from the highest


@dataclass(frozen=True)
class Outlook:
    """What a decision expects of a domain: `change` is the last measured one, `forecast` the one at the phase's end,
    `low` to `high` its 80 % interval, all relative; `needed`: the share that holds the budget, None: none does."""

    change: float
    stderr: float | None
    budget: float
    forecast: float
    low: float
    high: float
    worst_ahead: float
    share_before: float
    share: float
    needed: float | None
    probability: float


@dataclass(frozen=True)
class Decision:
    """Shares from here on; `verdict` is hold, raise, lower, or infeasible.

    `hopeless`: the domains whose budget the ceiling would not hold by today's forecast; `infeasible`: those given up by
    this decision.
    """

    phase: str
    step: int
    tokens: int
    progress: float
    shares: dict[str, float]
    rate_factor: float
    verdict: str
    hopeless: list[str]
    infeasible: list[str]
    domains: dict[str, Outlook]
    why: str

    def row(self) -> dict[str, Any]:
        """For guardrails.jsonl."""
        domains = {domain: _rounded(asdict(outlook)) for domain, outlook in self.domains.items()}
        return asdict(self) | {"domains": domains}  # the shares in full: they have to sum to 1


class Guardrails:
    """The controller of one phase.

    Args:
        start: the run's tokens at the phase's beginning.
    """

    def __init__(
        self, config: GuardrailsConfig, phase: PhaseConfig, segment: Segment, start: int, prior: Prior = DEFAULT_PRIOR
    ) -> None:
        self.config, self.phase, self.prior = config, phase, prior
        self.start, self.end = start, start + phase.step_tokens
        self._rates = RateCourse(segment, start, self.end)

    def decide(
        self,
        ledger: list[dict[str, Any]],
        mixtures: list[dict[str, Any]],
        earlier: list[dict[str, Any]],
        *,
        step: int,
        tokens: int,
    ) -> Decision:
        """What to do from `tokens` on.

        Args:
            ledger: all its rows.
            mixtures: `phase`, `tokens` and `shares` of every mixture of the run, in their order.
            earlier: rows of the decisions so far in this phase.
        """
        own = [one for one in mixtures if one["phase"] == self.phase.name]
        past = [one for one in own if one["tokens"] < max(tokens, self.start + 1)]
        before = {domain: past[-1]["shares"].get(domain, 0.0) for domain in self.config.budget}
        factors = [(self.start, 1.0), *((row["tokens"], row["rate_factor"]) for row in earlier)]
        standings = {domain: self._stand(domain, ledger, past, factors, tokens) for domain in self.config.budget}
        factor = factors[-1][1]
        shares, needed = self._shares(standings, tokens, factor, before)
        hopeless = self._hopeless(standings, tokens, factor, shares)
        given_up = [name for name in hopeless if _in_a_row(name, earlier) + 1 >= _TIMES]
        said = {name for row in earlier for name in row["infeasible"]}
        if given_up and self.config.infeasible == "lower rate":
            factor = self._feasible_factor(standings, tokens, factor)
            shares, needed = self._shares(standings, tokens, factor, before)
        shares = {domain: self._damped(before[domain], share, tokens) for domain, share in shares.items()}
        outlooks = {
            domain: self._outlook(standing, domain, ledger, tokens, factor, shares, before, needed[domain])
            for domain, standing in standings.items()
        }
        news = [name for name in given_up if name not in said]
        moved = sum(shares.values()) - sum(before.values())
        verdict = "infeasible" if news else "raise" if moved > 1e-9 else "lower" if moved < -1e-9 else "hold"
        return Decision(
            phase=self.phase.name,
            step=step,
            tokens=tokens,
            progress=round((tokens - self.start) / (self.end - self.start), 4),
            shares=self.mixture(shares),
            rate_factor=factor,
            verdict=verdict,
            hopeless=hopeless,
            infeasible=news,
            domains=outlooks,
            why=_reason(outlooks, news),
        )

    def mixture(self, replay: dict[str, float]) -> dict[str, float]:
        """These shares for the guarded domains, and the rest of the phase's mixture in its own proportions."""
        others = {name: share for name, share in self.phase.mixture.items() if name not in replay and share > 0}
        rest, total = 1 - sum(replay.values()), sum(others.values())
        shares = {name: share for name, share in replay.items() if share > 0}
        return shares | {name: rest * share / total for name, share in others.items()}

    # ------------------------------------------------------------------------------------------- the parts
    def _stand(
        self,
        domain: str,
        ledger: list[dict[str, Any]],
        past: list[dict[str, Any]],
        factors: list[tuple[int, float]],
        tokens: int,
    ) -> Standing:
        rows = [row for row in ledger if row["domain"] == domain and row["change"] is not None]
        begun = [row for row in rows if row["tokens"] <= self.start]
        start = float(np.log1p(begun[-1]["change"])) if begun else 0.0
        measured = [row for row in rows if self.start < row["tokens"] <= tokens]
        places = sorted(
            {row["tokens"] for row in measured} | {one["tokens"] for one in past if one["tokens"] > self.start}
        )
        points = self._rates.points(self.start, tokens, places)
        course = self._course(points, past, domain, factors)
        history = History(start, self._rates.start_rate, course, measurements_of(measured, points))
        # What the held-out documents say of the domain is off by as much at the end as it is now: they are the same.
        last = [*begun, *measured][-1:]
        error = last[0]["change_stderr"] or 0.0 if last else 0.0
        return believe([history], self.prior).after(history, error)

    def _course(
        self, points: np.ndarray, past: list[dict[str, Any]], domain: str, factors: list[tuple[int, float]]
    ) -> Course:
        """From the first point to the last, with the shares and rate factors that held."""
        begins = points[:-1]
        progress, rate = self._rates.between(points)
        factor = np.array([[one for at, one in factors if at <= place][-1] for place in begins])
        held = [[one["shares"] for one in past if one["tokens"] <= place][-1] for place in begins]
        own = np.array([shares.get(domain, 0.0) for shares in held])
        every = np.array([sum(shares.get(name, 0.0) for name in self.config.budget) for shares in held])
        return Course(progress * factor, rate * factor, own, every)

    def _rest(self, tokens: int, factor: float, own: float, all_replay: float) -> Course:
        return self._rates.course(self._rates.points(tokens, self.end, []), own, all_replay, factor)

    def _shares(
        self, standings: dict[str, Standing], tokens: int, factor: float, before: dict[str, float]
    ) -> tuple[dict[str, float], dict[str, float | None]]:
        """The least share of each that holds its budget, and what each needs without a ceiling.

        Needs that do not all fit under the ceiling are dealt it in proportion.
        """
        shares = dict(before)
        needed: dict[str, float | None] = {}
        for _ in range(_PASSES):
            for domain, standing in standings.items():
                others = min(sum(share for name, share in shares.items() if name != domain), self.config.ceiling)
                needed[domain] = self._needed(standing, domain, tokens, factor, others)
                wanted = needed[domain]
                shares[domain] = self.config.ceiling if wanted is None else min(wanted, self.config.ceiling)
        total = sum(shares.values())
        if total > self.config.ceiling:
            floor = self.config.floor
            part = (self.config.ceiling - floor * len(shares)) / (total - floor * len(shares))
            shares = {domain: floor + part * (share - floor) for domain, share in shares.items()}
        return shares, needed

    def _needed(self, standing: Standing, domain: str, tokens: int, factor: float, others: float) -> float | None:
        """The least share that holds the domain's budget; None where none does."""
        if tokens >= self.end:
            return self.config.floor
        grid = (
            self.config.floor + (max(self.config.floor, 1 - others) - self.config.floor) * np.linspace(0, 1, 33) ** 1.5
        )

        def holds(share: float) -> bool:
            return self._probability(standing, domain, tokens, factor, share, share + others) >= self.config.confidence

        if not holds(grid[-1]):
            return None
        low, high = 0, len(grid) - 1  # more replay of a domain never raises its forecast: bisection
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(grid[middle]) else (middle + 1, high)
        return float(grid[low])

    def _probability(
        self, standing: Standing, domain: str, tokens: int, factor: float, own: float, all_replay: float
    ) -> float:
        """That the budget is held at the end and its multiple on the way, of what replay can still do about it."""
        budget = self.config.budget[domain]
        end, worst = standing.forecast(self._rest(tokens, factor, own, all_replay))
        held = standing.probability(end, float(np.log1p(budget)), standing.error)
        if self.config.transient is None:
            return held
        limit = float(np.log1p(self.config.transient * budget))
        # Half is enough for the transient: it is a looser promise, and often passes before replay can act.
        return min(held, 2 * standing.probability(worst, limit))

    def _hopeless(
        self, standings: dict[str, Standing], tokens: int, factor: float, shares: dict[str, float]
    ) -> list[str]:
        """The domains whose budgets these shares, which fill the ceiling, are not likely to hold.

        None where all budgets together still have a chance.
        """
        if tokens >= self.end or sum(shares.values()) < self.config.ceiling - 1e-9:
            return []
        chances = {}
        for domain, standing in standings.items():
            end, _ = standing.forecast(self._rest(tokens, factor, shares[domain], self.config.ceiling))
            limit = float(np.log1p(self.config.budget[domain]))
            chances[domain] = standing.probability(end, limit, standing.error)
        if np.prod(list(chances.values())) >= _HOPELESS:
            return []
        return [domain for domain, chance in chances.items() if chance < _UNLIKELY or chance == min(chances.values())]

    def _feasible_factor(self, standings: dict[str, Standing], tokens: int, factor: float) -> float:
        """The highest factor of the rate at which no budget is hopeless; where all are, the one that ends lowest.

        A lower rate also repairs more slowly, so that may be the factor there is.
        """
        tried = [factor, *(one for one in _FACTORS if one < factor)]
        for one in tried:
            shares, _ = self._shares(standings, tokens, one, dict.fromkeys(standings, self.config.floor))
            if not self._hopeless(standings, tokens, one, shares):
                return one
        return min(tried, key=lambda one: self._excess_at_ceiling(standings, tokens, one))

    def _excess_at_ceiling(self, standings: dict[str, Standing], tokens: int, factor: float) -> float:
        """By how much the domains together miss their budgets with all the replay there may be, dealt evenly."""
        own = self.config.ceiling / len(standings)
        missed = 0.0
        for domain, standing in standings.items():
            end, _ = standing.forecast(self._rest(tokens, factor, own, self.config.ceiling))
            missed += max(0.0, standing.quantile(end, 0.5) - float(np.log1p(self.config.budget[domain])))
        return missed

    def _damped(self, before: float, wanted: float, tokens: int) -> float:
        """Most of the way to the wanted share; none of it where the difference is too small, or the phase over."""
        if tokens >= self.end:
            return before
        return before if abs(wanted - before) < self.config.deadband else before + self.config.gain * (wanted - before)

    def _outlook(
        self,
        standing: Standing,
        domain: str,
        ledger: list[dict[str, Any]],
        tokens: int,
        factor: float,
        shares: dict[str, float],
        before: dict[str, float],
        needed: float | None,
    ) -> Outlook:
        row = [row for row in ledger if row["domain"] == domain and row["tokens"] <= tokens][-1]
        budget = self.config.budget[domain]
        if tokens < self.end:
            end, worst = standing.forecast(self._rest(tokens, factor, shares[domain], sum(shares.values())))
        else:
            end = worst = np.full(len(standing.forgotten), np.log1p(row["change"] or 0.0))
        low, middle, high = (float(np.expm1(standing.quantile(end, q))) for q in (0.1, 0.5, 0.9))
        return Outlook(
            change=row["change"] or 0.0,
            stderr=row["change_stderr"],
            budget=budget,
            forecast=middle,
            low=low,
            high=high,
            worst_ahead=float(np.expm1(standing.quantile(worst, 0.5))),
            share_before=before[domain],
            share=shares[domain],
            needed=needed,
            probability=standing.probability(end, float(np.log1p(budget)), standing.error),
        )


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}


def _in_a_row(domain: str, earlier: list[dict[str, Any]]) -> int:
    """How many of the last decisions found the domain's budget hopeless."""
    count = 0
    for row in reversed(earlier):
        if domain not in row["hopeless"]:
            break
        count += 1
    return count


def _reason(outlooks: dict[str, Outlook], infeasible: list[str]) -> str:
    """One line: every domain's forecast against its budget."""
    said = [
        f"{domain} {one.change:+.1%} now, {one.forecast:+.1%} ({one.low:+.1%} to {one.high:+.1%}) forecast at the end, "
        f"budget {one.budget:.1%}"
        for domain, one in outlooks.items()
    ]
    return "; ".join(said) + (f"; infeasible: {', '.join(infeasible)}" if infeasible else "")
