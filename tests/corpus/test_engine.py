"""Threads change the time it takes, never the result."""

import threading
import time

import pytest

from aurora_m.corpus import engine
from aurora_m.corpus.engine import affordable_threads, ordered_threads


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_results_come_in_the_order_of_the_items(threads):
    def slow_square(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number * number

    with ordered_threads(threads) as in_order:
        assert list(in_order(slow_square, range(50))) == [number * number for number in range(50)]


@pytest.mark.parametrize("threads", [1, 3])
def test_one_map_may_feed_another(threads):
    with ordered_threads(threads) as in_order:
        assert list(in_order(lambda n: -n, in_order(lambda n: n + 1, range(20)))) == [-n - 1 for n in range(20)]


@pytest.mark.parametrize("threads", [1, 4])
def test_few_items_are_taken_ahead(threads):
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    with ordered_threads(threads) as in_order:
        results = in_order(lambda n: n, items())
        for _ in range(10):
            next(results)
        assert len(taken) <= 10 + threads + 2


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_stops_the_work_and_keeps_its_type(threads):
    def work(number: int) -> int:
        if number == 5:
            raise KeyError("five")
        return number

    with ordered_threads(threads) as in_order:
        results = in_order(work, range(10_000_000))
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(KeyError):
            next(results)


def test_work_happens_side_by_side():
    both = threading.Barrier(2, timeout=10)
    with ordered_threads(2) as in_order:
        assert len(list(in_order(lambda _: both.wait(), range(2)))) == 2


def test_memory_limits_the_threads(monkeypatch):
    monkeypatch.setattr(engine, "available_cores", lambda: 64)
    assert affordable_threads(1) == 1
    assert 1 < affordable_threads(1_000_000_000) < affordable_threads(2_000_000_000) < 64
    assert affordable_threads(10**12) == 64
