"""The cores of this process, which may be fewer than the machine has."""

import os

import pytest

from aurora_m.workspace import available_cores


def test_there_is_at_least_one_core_and_no_more_than_the_machine_has():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system gives no process cores of its own")
def test_cores_taken_from_the_process_do_not_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert available_cores() == 1
