"""What the recipe says about guardrails."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from aurora_m.workspace import Section, Share, parse_share


class GuardrailsConfig(Section):
    """How much worse than the base each guarded domain may be at every phase's end, and what may be done about it.

    `budget`: by domain, the relative increase of held-out bits per byte; a mapping of domains stands for it alone.
    Replay is moved between `floor` (each guarded domain) and `ceiling` (all of them together). `transient`: how many
    budgets a domain may be off on the way; null: as many as it likes. `confidence`: with which probability a budget is
    to be held. A share goes `gain` of the way to the wanted one, and stays where they differ by less than `deadband`.
    `infeasible`: what follows when a budget cannot be held.
    """

    budget: dict[str, Annotated[Share, Field(gt=0, lt=1)]] = Field(min_length=1)
    floor: Annotated[Share, Field(ge=0, lt=1)] = 0.005
    ceiling: Annotated[Share, Field(gt=0, le=0.95)] = 0.6
    transient: Annotated[float, Field(ge=1)] | None = 3.0
    confidence: Annotated[Share, Field(ge=0.5, lt=1)] = 0.9
    gain: Annotated[Share, Field(gt=0, le=1)] = 0.7
    deadband: Annotated[Share, Field(ge=0, lt=0.2)] = 0.01
    infeasible: Literal["stop", "continue", "lower rate"] = "stop"

    @model_validator(mode="before")
    @classmethod
    def _budgets_alone(cls, value: Any) -> Any:
        known = set(cls.model_fields)
        return {"budget": value} if isinstance(value, dict) and not known & set(value) else value

    @model_validator(mode="after")
    def _floors_fit(self) -> "GuardrailsConfig":
        floors = self.floor * len(self.budget)
        if floors > self.ceiling:
            raise ValueError(
                f"a floor of {self.floor} for each of {len(self.budget)} domains is more than the ceiling "
                f"{self.ceiling}; lower floor or raise ceiling"
            )
        return self


def guarded_domains(guardrails: Any) -> list[str]:
    """The domains that the recipe's `guardrails`, not yet checked, names."""
    budget = guardrails.get("budget", guardrails) if isinstance(guardrails, dict) else None
    return list(budget) if isinstance(budget, dict) else []


def with_replay(phase: Any, guarded: list[str]) -> Any:
    """A phase as the recipe has it, with `replay` in its mixture dealt evenly to the guarded domains.

    Raises:
        ValueError: there are none.
    """
    mixture = phase.get("mixture") if isinstance(phase, dict) else None
    if not isinstance(mixture, dict) or "replay" not in mixture:
        return phase
    if not guarded:
        raise ValueError(
            f"phase {phase.get('name')}: the mixture's replay stands for the guarded domains, and there are none; add "
            "train.guardrails, such as {en: 1%, code: 1%}, or name the domains"
        )
    share = parse_share(mixture["replay"]) / len(guarded)
    dealt = {domain: parse_share(mixture.get(domain, 0.0)) + share for domain in guarded}
    return phase | {"mixture": {name: share for name, share in mixture.items() if name != "replay"} | dealt}
