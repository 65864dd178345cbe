"""Mixtures by rule: temperature and UniMax as their papers have them, beside fixed shares."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_m.tokens import MixtureRule, resolve_shares
from aurora_m.tokens.mixture_rules import by_temperature, unimax
from aurora_m.workspace import RecipeError

SIZES = {"big": 9_000_000, "mid": 1_000_000, "small": 10_000}
sizes_of_domains = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 10**13), min_size=1)


@given(sizes_of_domains, st.floats(0.05, 50))
def test_temperature_shares_are_the_powers_of_the_sizes(sizes, temperature):
    shares = by_temperature(sizes, temperature)
    assert math.fsum(shares.values()) == pytest.approx(1)
    first = next(iter(sizes))
    for domain, size in sizes.items():
        assert math.isclose(shares[domain], shares[first] * (size / sizes[first]) ** (1 / temperature), abs_tol=1e-12)


def test_a_temperature_of_one_keeps_the_sizes_and_a_high_one_is_even():
    assert by_temperature(SIZES, 1)["big"] == pytest.approx(9_000_000 / 10_010_000)
    assert list(by_temperature(SIZES, 1e9).values()) == pytest.approx([1 / 3] * 3)


def unimax_as_published(sizes, epochs, budget):
    """Algorithm 1 of Chung et al. 2023, step by step."""
    order = sorted(sizes, key=sizes.__getitem__)
    remaining, given = budget, {}
    for index, domain in enumerate(order):
        per_language = remaining / (len(order) - index)
        given[domain] = sizes[domain] * epochs if per_language > sizes[domain] * epochs else per_language
        remaining -= given[domain]
    return {domain: tokens / sum(given.values()) for domain, tokens in given.items()}


@given(sizes_of_domains, st.floats(0.1, 20), st.floats(0.01, 0.99))
def test_unimax_is_the_published_algorithm_and_keeps_to_its_epochs(sizes, epochs, part):
    budget = part * epochs * sum(sizes.values())
    shares = unimax(sizes, epochs, budget)
    assert shares == pytest.approx(unimax_as_published(sizes, epochs, budget))
    for domain, share in shares.items():
        assert share * budget <= epochs * sizes[domain] * (1 + 1e-9)
        # Who has less than another gives all it may.
        if share < max(shares.values()) * (1 - 1e-9):
            assert share * budget == pytest.approx(epochs * sizes[domain])


def test_fixed_shares_come_first_and_the_rest_is_dealt():
    rule = MixtureRule(unimax=4, domains=["big", "small"])
    shares = resolve_shares("CAP", {"en": 0.1, "code": 0.1}, rule, SIZES | {"en": 5}, 1_000_000)
    assert shares == pytest.approx({"en": 0.1, "code": 0.1, "big": 0.76, "small": 0.04})
    rule = MixtureRule(temperature=2, domains=["big", "mid"])
    assert resolve_shares("CAP", {}, rule, SIZES, 1) == pytest.approx({"big": 0.75, "mid": 0.25})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"temperature": 2, "domains": ["big", "none"]}, "phase CAP: domain 'none' has no training tokens"),
        (
            {"unimax": 2, "domains": ["mid", "small"]},
            "2 epochs of mid, small are 2.02M tokens, and unimax has 4.5M to deal to them; allow more",
        ),
    ],
)
def test_what_the_domains_cannot_give_is_refused(rule, message):
    with pytest.raises(RecipeError, match=message):
        resolve_shares("CAP", {"en": 0.1}, MixtureRule(**rule), SIZES, 5_000_000)
