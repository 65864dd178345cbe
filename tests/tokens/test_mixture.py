"""The mixture: shares hold to within one sequence at every moment; nonsense is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.tokens import Mixture, check_shares


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=20))
def test_shares_hold_to_within_one_sequence_at_every_moment(weights):
    shares = {f"d{number}": weight / sum(weights) for number, weight in enumerate(weights)}
    mixture = Mixture(shares)
    given_out = dict.fromkeys(shares, 0)
    for dealt in range(1, 400):
        given_out[mixture.next_domain()] += 1
        assert all(abs(shares[domain] * dealt - given_out[domain]) < 1 + 1e-9 for domain in shares)


def test_equal_shares_take_turns_in_recipe_order():
    mixture = Mixture({"b": 0.5, "a": 0.5})
    assert [mixture.next_domain() for _ in range(6)] == ["b", "a"] * 3


def test_a_domain_with_no_share_gets_nothing():
    mixture = Mixture({"a": 1.0, "b": 0.0})
    assert {mixture.next_domain() for _ in range(50)} == {"a"}


@given(st.integers(0, 60), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_state_goes_round(before, weights):
    shares = {f"d{number}": weight / sum(weights) for number, weight in enumerate(weights)}
    mixture, resumed = Mixture(shares), Mixture({"other": 1.0})
    for _ in range(before):
        mixture.next_domain()
    resumed.load_state_dict(mixture.state_dict())
    assert [mixture.next_domain() for _ in range(40)] == [resumed.next_domain() for _ in range(40)]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": 0.5, "b": 0.45}, "phase CAP: shares sum to 0.95, expected 1.0; did you leave out 'c'?"),
        ({"a": 0.5, "b": 0.6, "c": 0.1}, "phase CAP: shares sum to 1.2, expected 1.0; change one of them"),
        ({"a": 0.5, "coda": 0.5}, "phase CAP: the mixture names an unknown domain 'coda'; did you mean 'code'?"),
        ({"a": 0.5, "xyz": 0.5}, "unknown domain 'xyz'; the domains are a, b, c, code"),
        ({"a": 1.5, "b": -0.5}, "share of 'b' is -0.5, expected 0 to 1"),
        ({"a": float("nan")}, "share of 'a' is nan"),
        ({}, "phase CAP: shares sum to 0, expected 1.0"),
    ],
)
def test_shares_that_cannot_be_meant_are_refused(shares, message):
    known = ["a", "b", "c"] if "left" in message or "leave" in message else ["a", "b", "c", "code"]
    with pytest.raises(ValueError, match=r".") as caught:
        check_shares("CAP", shares, known)
    assert message in str(caught.value)


def test_shares_that_sum_to_one_pass():
    check_shares("CAP", {"a": 0.1, "b": 0.2, "c": 0.7}, ["a", "b", "c"])
