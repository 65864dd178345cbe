"""A part of every domain is set aside by content."""

import numpy as np
import pytest

from aurora_m.corpus import HeldoutConfig
from aurora_m.corpus.heldout import choose_heldout


def chosen(n: int, **settings) -> int:
    hashes = np.random.default_rng(1).integers(0, 2**63, n, np.uint64)
    return int(choose_heldout(hashes, np.ones(n, bool), HeldoutConfig(**settings)).sum())


@pytest.mark.parametrize(
    ("documents", "expected"), [(1000, 20), (100_000, 400), (200, 8), (20, 5), (4, 1), (3, 0), (0, 0)]
)
def test_its_size_follows_the_share_within_bounds_and_never_exceeds_a_quarter(documents, expected):
    assert chosen(documents) == expected


def test_a_share_of_zero_sets_nothing_aside():
    assert chosen(1000, share=0) == 0


def test_duplicates_are_never_chosen():
    hashes, kept = np.arange(100, dtype=np.uint64), np.arange(100) >= 50
    assert np.flatnonzero(choose_heldout(hashes, kept, HeldoutConfig())).tolist() == list(range(50, 58))


def test_the_choice_follows_the_content_and_not_the_order():
    hashes = np.random.default_rng(2).integers(0, 2**63, 500, np.uint64)
    order = np.random.default_rng(3).permutation(500)
    first = choose_heldout(hashes, np.ones(500, bool), HeldoutConfig())
    second = choose_heldout(hashes[order], np.ones(500, bool), HeldoutConfig())
    assert set(hashes[first]) == set(hashes[order][second])
