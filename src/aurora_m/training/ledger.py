"""The forgetting ledger: held-out bits-per-byte of every domain, against the base model, over the whole run."""

import math
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from aurora_m.model import Decoder
from aurora_m.tokens import DomainTokens, HeldoutBatch, heldout_batches
from aurora_m.workspace import atomic_path, read_json

from .device import autocast, resolve_precision
from .parallel import reshard
from .parallel_loss import decoder_loss
from .pipelining import Pipeline
from .ranks import SINGLE, Ranks

LEDGER_SCHEMA = pa.schema(
    {
        "phase": pa.string(),
        "step": pa.int64(),
        "tokens": pa.int64(),
        "domain": pa.string(),
        "bpb": pa.float64(),
        "base_bpb": pa.float64(),
        "change": pa.float64(),
        "stderr": pa.float64(),
        "change_stderr": pa.float64(),
        "documents": pa.int64(),
        "bytes": pa.int64(),
    }
)
_TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class HeldoutScore:
    """Bits-per-byte of a held-out set; `stderr` is over its documents (None where there is only one).

    `bits`: float64[documents], those of each document, where they are known.
    """

    bpb: float
    stderr: float | None
    documents: int
    bytes: int
    tokens: int
    bits: np.ndarray | None = field(default=None, compare=False, repr=False)


def heldout_domains(tokens: Path) -> list[str]:
    """The domains with held-out documents, in the order of `tokens.json`."""
    domains = read_json(tokens / "tokens.json")["domains"]
    return [domain for domain, splits in domains.items() if splits.get("heldout", {}).get("documents", 0)]


def score_heldout(
    model: Decoder | Pipeline,
    tokens: Path,
    domains: list[str],
    sequence_length: int,
    heldout_tokens: int | dict[str, int] | None = None,
    batch_size: int | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ranks: Ranks = SINGLE,
    chosen: dict[str, np.ndarray] | None = None,
) -> dict[str, HeldoutScore]:
    """Scores the held-out documents of each domain, packed into windows of `sequence_length`, every token once.

    Args:
        tokens: the folder written by the tokenize stage.
        heldout_tokens: at most about this many tokens of each domain, or by domain, whole documents; None, and for a
            domain without a number, all.
        batch_size: windows per forward pass; None for about 4,096 tokens.
        ranks: those that score together; each data rank takes its share of the batches.
        chosen: the numbers of the documents to score, by domain, in place of those `heldout_tokens` takes.

    Raises:
        DataError: a domain has no held-out shards, or they are damaged.
    """
    eod_id = read_json(tokens / "tokens.json")["tokenizer"]["eod_id"]
    batch_size = batch_size or max(1, _TOKENS_PER_BATCH // sequence_length)
    was_training = model.training
    model.eval()
    try:
        return {
            domain: _score_domain(
                model,
                DomainTokens(tokens, domain, "heldout"),
                sequence_length,
                batch_size,
                eod_id,
                heldout_tokens.get(domain) if isinstance(heldout_tokens, dict) else heldout_tokens,
                precision,
                ranks,
                (chosen or {}).get(domain),
            )
            for domain in domains
        }
    finally:
        model.train(was_training)
        reshard(model)


@torch.no_grad()
def _score_domain(
    model: Decoder | Pipeline,
    documents: DomainTokens,
    sequence_length: int,
    batch_size: int,
    eod_id: int,
    heldout_tokens: int | None,
    precision: Literal["auto", "float32", "bfloat16"],
    ranks: Ranks,
    chosen: np.ndarray | None,
) -> HeldoutScore:
    device = next(model.parameters()).device
    dtype = resolve_precision(precision, device)
    batches = heldout_batches(documents, sequence_length, batch_size, eod_id, heldout_tokens, chosen)
    nats = np.zeros(documents.documents)
    scored_tokens = 0
    for batch, is_own in _dealt(batches, ranks):
        ids, targets, positions, document_ids = (
            torch.from_numpy(array).to(device)
            for array in (batch.input_ids, batch.targets, batch.positions, batch.document_ids)
        )
        with autocast(device, dtype):
            if isinstance(model, Pipeline):
                token_nll, is_own = model.score(ids, targets, positions, document_ids), is_own and model.holds_last
            else:
                hidden = model(ids, positions=positions, document_ids=document_ids)
                _, token_nll = decoder_loss(model, hidden, targets, 1.0)
        scored = (batch.document_index >= 0) & is_own
        nats += np.bincount(batch.document_index[scored], token_nll.cpu().numpy()[scored], minlength=len(nats))
        scored_tokens += int(scored.sum())
    together = ranks.sum(torch.from_numpy(np.append(nats, scored_tokens)), "data", "pipeline").numpy()
    nats, scored_tokens = together[:-1], int(together[-1])
    bits = nats[batches.documents_scored] / math.log(2)
    return summarize(bits, batches.bytes.astype(np.float64), scored_tokens)


def _dealt(batches: Iterable[HeldoutBatch], ranks: Ranks) -> Iterator[tuple[HeldoutBatch, bool]]:
    """This rank's batches, in turns of one for each data rank, and whether they count.

    Sharded weights are gathered by all ranks at once, so those that a last turn leaves out score its first batch too.
    """
    place, turn = ranks.place("data"), []
    for batch in batches:
        turn.append(batch)
        if len(turn) == ranks.degree("data"):
            yield turn[place], True
            turn = []
    if turn:
        yield (turn[place], True) if place < len(turn) else (turn[0], False)


def summarize(bits: np.ndarray, sizes: np.ndarray, tokens: int) -> HeldoutScore:
    """Bits-per-byte from each document's bits and bytes, with the standard error of a ratio estimator.

    The documents are the sample; bpb is a ratio of two sums over it, so its error is that of the mean residual
    bits_i - bpb * bytes_i over the mean size (Cochran 1977, section 2.11).
    """
    bpb, stderr = _ratio(bits, sizes)
    return HeldoutScore(bpb, stderr, len(bits), int(sizes.sum()), tokens, bits)


def change_against(bits: np.ndarray, base_bits: np.ndarray) -> tuple[float, float | None]:
    """The relative change of bits-per-byte against the base on the same documents, and its standard error.

    The documents' sizes cancel, so the change is itself a ratio of two sums. Documents that are hard for one model are
    hard for the other: the error is a fraction of what the two bpb's own errors would make of it.
    """
    ratio, stderr = _ratio(bits, base_bits)
    return ratio - 1, stderr


def _ratio(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, float | None]:
    n, ratio = len(numerators), float(numerators.sum() / denominators.sum())
    if n < 2:
        return ratio, None
    residuals = numerators - ratio * denominators
    return ratio, float(np.std(residuals, ddof=1) / denominators.mean() / math.sqrt(n))


def ledger_rows(
    earlier: list[dict[str, Any]],
    scores: dict[str, HeldoutScore],
    *,
    phase: str,
    step: int,
    tokens: int,
    reference_step: int,
    base_bits: dict[str, np.ndarray] | None = None,
    base_bpb: dict[str, float] | None = None,
) -> list[dict[str, Any]]:
    """One row per domain, compared with `base_bpb` or the rows of `reference_step`; null where that is still to come.

    `base_bits`: those of each held-out document at the reference step, where they are known; the change's error needs
    them.
    """
    if base_bpb is not None:
        pass
    elif step == reference_step:
        base_bpb = {domain: score.bpb for domain, score in scores.items()}
    else:
        base_bpb = {row["domain"]: row["bpb"] for row in earlier if row["step"] == reference_step}
    return [
        {
            "phase": phase,
            "step": step,
            "tokens": tokens,
            "domain": domain,
            "bpb": score.bpb,
            "base_bpb": base_bpb.get(domain),
            "change": score.bpb / base_bpb[domain] - 1 if domain in base_bpb else None,
            "stderr": score.stderr,
            "change_stderr": _change_error(score, (base_bits or {}).get(domain)) if domain in base_bpb else None,
            "documents": score.documents,
            "bytes": score.bytes,
        }
        for domain, score in scores.items()
    ]


def _change_error(score: HeldoutScore, base_bits: np.ndarray | None) -> float | None:
    if score.bits is None or base_bits is None or len(score.bits) != len(base_bits):
        return None
    return change_against(score.bits, base_bits)[1]


def write_base_bits(bits: dict[str, np.ndarray], path: Path) -> None:
    """Writes the base's bits of each held-out document, by domain, atomically (.npz)."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **bits)


def read_base_bits(path: Path) -> dict[str, np.ndarray]:
    """What `write_base_bits` wrote; nothing where there is no such file, or none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile):
        return {}


def write_ledger(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes the whole ledger, atomically; it is a few rows per domain."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA), temporary)
