"""Which documents of a domain are never trained on."""

import numpy as np

from .config import HeldoutConfig


def choose_heldout(hashes: np.ndarray, kept: np.ndarray, config: HeldoutConfig) -> np.ndarray:
    """A mask, bool[n], of the kept documents with the smallest content hashes.

    Their number is `share` of the kept ones, at least `min_documents` and at most `max_documents`, but never more than
    a quarter. Chosen by content, the part stays mostly the same when documents are added or their order changes.

    hashes: uint64[n]; kept: bool[n], the documents that are left after the search for duplicates.
    """
    candidates = np.flatnonzero(kept)
    number = min(max(round(config.share * len(candidates)), config.min_documents), config.max_documents)
    number = min(number, len(candidates) // 4) if config.share else 0
    order = np.argsort(hashes[candidates], kind="stable")
    chosen = np.zeros(len(kept), bool)
    chosen[candidates[order[:number]]] = True
    return chosen
