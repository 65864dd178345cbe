"""The sample of dropped documents is the same however they come."""

import numpy as np
import pyarrow as pa

from aurora_m.corpus.documents import DOCUMENT_SCHEMA
from aurora_m.corpus.funnel import DroppedSample


def test_the_sample_has_the_smallest_ranks_of_every_reason_whatever_the_batches():
    generator = np.random.default_rng(0)
    ranks = generator.integers(0, 200, 500).astype(np.uint64)  # some are equal
    reasons = [f"r{number}" for number in generator.integers(0, 3, 500)]
    ids = pa.array([str(number) for number in range(500)])
    rows = pa.RecordBatch.from_arrays(
        [ids if field.name == "id" else pa.repeat(pa.scalar("x", field.type), 500) for field in DOCUMENT_SCHEMA],
        schema=DOCUMENT_SCHEMA,
    )
    order = sorted(range(500), key=lambda row: (reasons[row], ranks[row]))
    expected = [str(row) for name in ("r0", "r1", "r2") for row in [r for r in order if reasons[r] == name][:4]]
    for size in (1, 7, 500):
        sample = DroppedSample(4)
        for start in range(0, 500, size):
            some = slice(start, start + size)
            sample.add(rows.slice(start, size), "pass", reasons[some], ranks[some])
        assert sample.frame()["id"].to_list() == expected
