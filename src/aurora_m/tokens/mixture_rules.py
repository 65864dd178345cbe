"""Shares by rule: what the domains hold, and how many tokens a phase has, make a mixture."""

import math

from aurora_m.workspace import RecipeError, format_count

from .config import MixtureRule


def resolve_shares(
    phase: str, shares: dict[str, float], rule: MixtureRule, available: dict[str, int], tokens: int
) -> dict[str, float]:
    """The mixture of a phase of so many `tokens`: `shares` as they are, and the rest dealt by the rule.

    Args:
        available: tokens of an epoch of each domain.

    Raises:
        RecipeError: a domain has no tokens; the rule's domains have too few for the epochs it allows.
    """
    if missing := [domain for domain in rule.domains if not available.get(domain)]:
        raise RecipeError(
            f"phase {phase}: domain '{missing[0]}' has no training tokens; give it sources or leave it out"
        )
    rest = 1.0 - math.fsum(shares.values())
    sizes = {domain: available[domain] for domain in rule.domains}
    if rule.temperature is not None:
        dealt = by_temperature(sizes, rule.temperature)
    else:
        assert rule.unimax is not None
        dealt = unimax(sizes, rule.unimax, rest * tokens)
        if dealt is None:
            most = rule.unimax * sum(sizes.values())
            raise RecipeError(
                f"phase {phase}: {rule.unimax:g} epochs of {', '.join(sizes)} are {format_count(most)} tokens, and "
                f"unimax has {format_count(rest * tokens)} to deal to them; allow more epochs, give other domains "
                "fixed shares, or the phase fewer tokens"
            )
    return {**shares, **{domain: rest * share for domain, share in dealt.items()}}


def by_temperature(sizes: dict[str, int], temperature: float) -> dict[str, float]:
    """Shares in proportion to size ** (1 / T): 1 as the sizes are, above it more even (Conneau et al. 2020)."""
    largest = max(sizes.values())  # as a divisor it keeps low temperatures within the range of floats
    powers = {domain: (size / largest) ** (1 / temperature) for domain, size in sizes.items()}
    total = math.fsum(powers.values())
    return {domain: power / total for domain, power in powers.items()}


def unimax(sizes: dict[str, int], epochs: float, tokens: float) -> dict[str, float] | None:
    """Shares as even as they can be with at most `epochs` of any domain (Chung et al. 2023, algorithm 1).

    The smallest first: each gets an even part of what is left, or all that it may give. None where all give what they
    may and it is too little.
    """
    left, given = tokens, {}
    order = sorted(sizes, key=lambda domain: (sizes[domain], domain))
    for place, domain in enumerate(order):
        given[domain] = min(left / (len(order) - place), epochs * sizes[domain])
        left -= given[domain]
    if left > 1e-9 * tokens:
        return None
    return {domain: given[domain] / tokens for domain in sizes}
