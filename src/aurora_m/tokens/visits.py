"""Who comes when in an epoch, also where documents join in its middle: a pure function of what a cursor records.

An epoch begins with one layer: a permutation of the documents there are. When documents join, those that the layer has
still to visit and the new ones are permuted together, which is the next layer; and so on. So each document is visited
once in an epoch, new ones are spread evenly over the rest of it, and nothing is kept but two numbers for each layer.
The next epoch is one layer again.
"""

from collections.abc import Sequence

import numpy as np

from .order import named_key, permuted


class Visits:
    """The rest of one epoch.

    Args:
        names: seed, domain and epoch.
        frozen: (documents that joined, place it was left at) of each layer but the last. The document at that place is
            the one a cursor was in; it goes on in it, at place -1 of the next layer.
        documents: all there are, the last to join included.
    """

    def __init__(self, names: tuple, frozen: Sequence[Sequence[int]], documents: int) -> None:
        self._keys = [named_key("order", *names), *(named_key("joined", *names, n) for n in range(1, len(frozen) + 1))]
        joined = [count for count, _ in frozen]
        self._joined = [*joined, documents - sum(joined)]
        self._left_at = [place for _, place in frozen]
        self._lengths = [self._joined[0]]
        for count, place in zip(self._joined[1:], self._left_at, strict=True):
            self._lengths.append(self._lengths[-1] - place - 1 + count)

    def __len__(self) -> int:
        """Places of the last layer."""
        return self._lengths[-1]

    @property
    def last_joined(self) -> int:
        """How many documents the last layer brought."""
        return self._joined[-1]

    def numbers(self, start: int, stop: int) -> np.ndarray:
        """The documents at places `start` to `stop` of the last layer, int64; only the first place may be -1."""
        return self._numbers(len(self._lengths) - 1, np.arange(start, stop))

    def _numbers(self, layer: int, places: np.ndarray) -> np.ndarray:
        numbers = np.empty(len(places), np.int64)
        before = places < 0
        if before.any():
            numbers[before] = self._numbers(layer - 1, np.array([self._left_at[layer - 1]]))
        drawn = permuted(places[~before], self._lengths[layer], self._keys[layer])
        if layer:
            still = self._lengths[layer] - self._joined[layer]  # those the layer before had to visit come first
            old = drawn < still
            found = drawn - still + sum(self._joined[:layer])
            found[old] = self._numbers(layer - 1, self._left_at[layer - 1] + 1 + drawn[old])
            drawn = found
        numbers[~before] = drawn
        return numbers
