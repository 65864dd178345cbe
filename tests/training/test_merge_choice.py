"""Which candidate is kept: the one that learned most inside the budget, told from noise."""

import numpy as np
import pytest

from aurora_m.training.ledger import summarize
from aurora_m.training.merge_choice import Aim, choose, judge, learned_more, next_shares

DOCUMENTS = 400
SIZES = np.full(DOCUMENTS, 100.0)


def scores(seed: int = 0, noise: float = 0.0, **change: float) -> dict:
    """Held-out scores of `en` and `fi`: the base's bits times 1 + change, with noise over documents that cancels out."""
    bits = 100 + 30 * np.random.default_rng(9).random(DOCUMENTS)  # some documents are harder, for every model
    random = np.random.default_rng(seed)
    found = {}
    for domain in ("en", "fi"):
        noises = noise * random.standard_normal(DOCUMENTS)
        noises -= (noises * bits).sum() / bits.sum()
        found[domain] = summarize(bits * (1 + change.get(domain, 0.0) + noises), SIZES, 0)
    return found


AIM = Aim(scores(), {"en": 0.01}, ["fi"])


def point(base_share: float, en: float, fi: float, noise: float = 0.0, average_last: int = 1, seed: int = 1):
    return judge(average_last, base_share, scores(seed, noise, en=en, fi=fi), AIM)


def test_changes_are_against_the_base_and_inside_counts_one_standard_error():
    plain, noisy = point(0.1, 0.009, -0.3), point(0.1, 0.009, -0.3, noise=0.05)
    assert plain.changes["en"] == pytest.approx((0.009, 0.0), abs=1e-9)
    assert plain.inside and plain.learning == pytest.approx(-0.3)
    assert 0.002 < noisy.changes["en"][1] < 0.003  # 0.05 / sqrt(400)
    assert noisy.changes["en"][0] == pytest.approx(0.009) and not noisy.inside


def test_of_those_inside_the_one_that_learned_most_is_kept():
    points = [point(0, 0.04, -0.40), point(0.1, 0.02, -0.38), point(0.2, 0.008, -0.35), point(0.3, 0.004, -0.3)]
    chosen, reason = choose(points, AIM)
    assert chosen.base_share == 0.2
    assert "of 2 candidates inside the budget" in reason and "en +4.00%" in reason


def test_the_unmerged_model_stays_unless_another_learned_measurably_more():
    unmerged = point(0, 0.005, -0.300, noise=0.1, seed=1)
    a_little = point(0.05, 0.004, -0.301, noise=0.1, seed=1)
    assert choose([unmerged, a_little], AIM)[0].is_unmerged is False  # the same noise: a sure difference, if small
    chance = point(0.05, 0.004, -0.301, noise=0.02, seed=2)
    unmerged = point(0, 0.005, -0.300, noise=0.02, seed=3)
    assert choose([unmerged, chance], AIM)[0].is_unmerged
    sure = point(0.05, 0.004, -0.34, noise=0.02, seed=2)
    chosen, reason = choose([unmerged, sure], AIM)
    assert chosen is sure and "measurably lower than unmerged" in reason


def test_where_none_is_inside_the_unmerged_model_stays_and_the_nearest_is_named():
    chosen, reason = choose([point(0, 0.04, -0.4), point(0.4, 0.02, -0.2), point(0.3, 0.03, -0.3)], AIM)
    assert chosen.is_unmerged
    assert "no candidate is inside the budget; nearest is base share 0.4, with en +2.00% ± 0.00% of 1.00%" in reason


def test_the_error_of_a_difference_is_that_of_many_draws_of_documents():
    aim = Aim(scores(), {"en": 0.01}, ["en", "fi"])
    one, two = (judge(1, 0.1, scores(seed, 0.05, en=0.01, fi=-0.2), aim) for seed in (1, 2))
    gain, stderr = learned_more(one, two, aim)
    assert gain == pytest.approx(two.learning - one.learning, abs=1e-12)
    random = np.random.default_rng(5)
    drawn = []
    for _ in range(1500):
        gains = []
        for domain in aim.learned:
            rows = random.integers(DOCUMENTS, size=DOCUMENTS)
            bits, others, base = (part[domain].bits[rows] for part in (one.scores, two.scores, aim.base))
            gains.append((others.sum() - bits.sum()) / base.sum())
        drawn.append(np.mean(gains))
    assert stderr == pytest.approx(np.std(drawn), rel=0.08)


def test_finer_shares_lie_around_the_best_inside_or_else_the_nearest():
    line = [point(0, 0.04, -0.4), point(0.1, 0.008, -0.35), point(0.2, 0.004, -0.3)]
    assert next_shares(line) == [0.05, 0.15]
    outside = [point(0, 0.04, -0.4), point(0.1, 0.03, -0.35), point(0.2, 0.02, -0.3)]
    assert next_shares(outside) == [0.15]
    assert next_shares([point(0, 0.04, -0.4), point(0.005, 0.008, -0.4)]) == []


def test_names_say_what_a_candidate_is_made_of():
    names = [point(share, 0.0, 0.0, average_last=last).name for last, share in ((1, 0), (1, 0.05), (3, 0), (3, 0.125))]
    mean = "mean of the last 3 checkpoints"
    assert names == ["unmerged", "base share 0.05", mean, f"{mean}, base share 0.125"]
