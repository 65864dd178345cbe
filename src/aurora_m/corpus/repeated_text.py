"""The pass that takes repeated text out of the documents that stay, and drops those with too little left."""

import time

import numpy as np
import pyarrow as pa

from .dedup import content_hashes
from .documents import filtered, text_bytes
from .funnel import DroppedSample, Funnel
from .removals import Removals

_PASS, _REASON = "repeated_text", "repeated_text:nothing_left"


def remove_repeats(
    documents: pa.RecordBatch, numbers: np.ndarray, removals: Removals, funnel: Funnel, sample: DroppedSample
) -> tuple[pa.RecordBatch, np.ndarray]:
    """The documents without their repeats, but for those with too little left; and the rows these were (int64).

    What goes is counted, and dropped documents are offered to the sample.

    Args:
        numbers: of the documents, in the order in which they were added to the index (int64).
    """
    if not removals.compares:
        return documents, np.arange(len(numbers))
    started = time.perf_counter()
    bytes_before = text_bytes(documents)
    changed, gone = removals.remove(documents, numbers)
    keep = ~removals.emptied[numbers]
    funnel.repeated_text.add(gone)
    funnel.count_pass(_PASS, changed, keep, [_REASON] * len(keep))
    # The texts were counted as they became; what came in is what they were.
    funnel.passes[_PASS].bytes_in += bytes_before - text_bytes(changed)
    funnel.passes[_PASS].seconds += time.perf_counter() - started
    dropped = documents.filter(pa.array(~keep))
    sample.add(dropped, _PASS, [_REASON] * dropped.num_rows, content_hashes(dropped.column("text")))
    return filtered(changed, keep), np.flatnonzero(keep)
