"""What the recipe says about merging the final model with its base."""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt

from aurora_m.workspace import Section, Share, parse_share


def parse_budget(value: Any) -> Any:
    """`1%` or `{en: 1%}` as fractions.

    Raises:
        ValueError: a share cannot be read, or is below 0.
    """
    if value is None:
        return None
    budget = {name: parse_share(one) for name, one in value.items()} if isinstance(value, dict) else parse_share(value)
    for share in budget.values() if isinstance(budget, dict) else [budget]:
        if not 0 <= share < math.inf:
            raise ValueError(f"a budget of {share:g} makes no sense; write how much worse a domain may get, such as 1%")
    return budget


class MergeConfig(Section):
    """After the last phase: models between the base and the final one are scored, and the best within budget is kept.

    `base_shares` are the base's shares to try, then `refinements` times those halfway between the best and its
    neighbours; the mean of the last `average_last` checkpoints is tried too (1: not). `budget` is how much worse known
    domains may get, one for all or by domain; where it is left out, `train.guardrails` says so.
    """

    base_shares: list[Annotated[Share, Field(gt=0, lt=1)]] = Field(
        default=[0.05, 0.1, 0.15, 0.2, 0.3, 0.4], min_length=1
    )
    refinements: int = Field(default=2, ge=0, le=8)
    average_last: PositiveInt = 3
    budget: Annotated[float | dict[str, float] | None, BeforeValidator(parse_budget)] = None


def parse_merge(value: Any) -> Any:
    """`auto` as all defaults, `off` (which YAML reads as false) as none."""
    if value == "auto":
        return {}
    if value is True or (isinstance(value, str) and value != "off"):
        raise ValueError(f"merge {value!r}: write auto, off, or settings such as {{base_shares: [0.1, 0.2]}}")
    return None if value is False or value == "off" else value
