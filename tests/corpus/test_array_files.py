"""Keys that recur are found without sorting all places by key."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.corpus.array_files import recurring


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_rows_whose_keys_recur_come_by_key_then_by_row(pairs):
    # Keys that differ in their lower bits only, which are cut off at first, and in their upper ones only.
    keys = np.array([high << 62 | low for high, low in pairs], np.uint64)
    order = np.argsort(keys, kind="stable")
    expected = [row for row in order.tolist() if (keys == keys[row]).sum() > 1]
    assert recurring(keys).tolist() == expected
