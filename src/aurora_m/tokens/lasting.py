"""What lasts in a run though its token shards are written anew: its held-out text, and the documents' numbers.

    heldout/<domain>/heldout-*                as they were when the run first met the domain
    documents/<domain>/numbering.json         the shards that the numbers are of, how many documents ever were
    documents/<domain>/<shards>/train-*.docs.parquet   who they are, until they change for the first time; then
    documents/<domain>/identities-<shards>.npy         uint64[documents], a hash of id, source and tokens
    documents/<domain>/places-<shards>.npy             int64[documents], the place in the shards, -1 where it is gone

A document keeps its number as long as id, source and number of tokens are the same, wherever it lies; new ones get the
next numbers. So cursors, orders and quarantines stay true when sources are added to a domain or taken from it, which
also moves documents of other sources: between training and held-out text, and into clusters of duplicates. What was
held out once is never trained on.
"""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aurora_m.workspace import DataError, atomic_folder, atomic_path, read_json, write_json

from .shards import DomainTokens

_RECORD = "numbering.json"


class Renumbered(NamedTuple):
    """What new shards brought, in documents: `joined`, `gone`, and `held_out` ones that are not trained on."""

    joined: int
    gone: int
    held_out: int


class LastingDocuments:
    """A domain's training documents under the numbers they have in a run; `tokens.streams.Documents` of it.

    Raises:
        DataError: shards are missing or damaged, or other ones than `renumber` saw.
    """

    def __init__(self, tokens: Path, domain: str, kept: Path) -> None:
        self._shards = DomainTokens(tokens, domain)
        self.domain = domain
        record = read_json(kept / "documents" / domain / _RECORD)
        self.documents, self.tokens = record["documents"], self._shards.tokens
        self.absent: np.ndarray | None = None
        self.weights, self.tokens_per_epoch = self._shards.weights, self._shards.tokens_per_epoch
        self._places: np.ndarray | None = None
        if record["renumbered"]:
            path = kept / "documents" / domain / f"places-{record['shards'][:12]}.npy"
            self._places = _load(path)
            self.absent = self._places < 0
            lengths = self._shards.lengths[self._places[~self.absent]]
            self.tokens = self.tokens_per_epoch = int(lengths.sum(dtype=np.int64))
            if self.weights is not None:
                self.weights = np.where(self.absent, np.float32(0), self.weights[self._places])
                self.tokens_per_epoch = float(lengths @ self.weights[~self.absent].astype(np.float64))
        elif self.documents != self._shards.documents:
            raise DataError(
                f"{self._shards.folder} has {self._shards.documents} documents, and {self.documents} when the run "
                "began; run the train stage again"
            )

    def document(self, index: int) -> np.ndarray:
        """The tokens of a document, uint16 or int32, EOD last; a view into the file."""
        return self._shards.document(index if self._places is None else int(self._places[index]))

    def ids(self, numbers: Iterable[int]) -> list[str]:
        """The ids of some documents, in the order of their numbers.

        Raises:
            DataError: a docs.parquet is damaged.
        """
        if self._places is None:
            return self._shards.ids(numbers)
        places = self._places[np.fromiter(numbers, np.int64)]
        order = np.argsort(places)
        ids = dict(zip(order.tolist(), self._shards.ids(places[order].tolist()), strict=True))
        return [ids[number] for number in range(len(places))]


def renumber(tokens: Path, domain: str, kept: Path, shards: str) -> Renumbered | None:
    """Gives the documents of a domain their numbers in the run whose folder is `kept`; None where they have them.

    `shards` is the fingerprint of the domain's files. A kill leaves the old numbers or the new ones.

    Raises:
        DataError: files are missing or damaged.
    """
    folder = kept / "documents" / domain
    record = read_json(folder / _RECORD) if (folder / _RECORD).exists() else None
    if record is not None and record["shards"] == shards:
        return None
    current = DomainTokens(tokens, domain)
    paths = [shard.docs_path for shard in current.shards]
    if record is None:
        with atomic_folder(folder / shards[:12]) as temporary:
            _keep(paths, temporary)
        write_json(folder / _RECORD, {"shards": shards, "documents": current.documents, "renumbered": False})
        return None
    old = record["shards"][:12]
    known = (
        _load(folder / f"identities-{old}.npy")
        if record["renumbered"]
        else _identities(sorted((folder / old).glob("*.docs.parquet")))
    )
    held = _identities(sorted((kept / "heldout" / domain).glob("*.docs.parquet")))
    identities, places, held_out = align(known, _identities(paths), held)
    before = _load(folder / f"places-{old}.npy") if record["renumbered"] else np.zeros(len(known))
    gone = int(((places[: len(known)] < 0) & (before >= 0)).sum())
    for name, values in (("identities", identities), ("places", places)):
        with atomic_path(folder / f"{name}-{shards[:12]}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, values, allow_pickle=False)
    write_json(folder / _RECORD, {"shards": shards, "documents": len(places), "renumbered": True})
    shutil.rmtree(folder / old, ignore_errors=True)
    for name in ("identities", "places"):
        (folder / f"{name}-{old}.npy").unlink(missing_ok=True)
    return Renumbered(len(places) - len(known), gone, held_out)


def align(known: np.ndarray, present: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The documents ever known and the place of each among the present ones, new ones last; and how many are left out.

    Args:
        known, present, held_out: uint64, the identities of documents by number, by place, and of those held out.

    Returns:
        identities uint64[n], places int64[n] (-1 where it is gone), and the count of those present but held out.
    """
    outside = np.isin(present, held_out)
    order = np.argsort(present, kind="stable")
    found = np.searchsorted(present[order], known)
    found[found == len(present)] = 0
    places = np.where(present[order[found]] == known, order[found], -1).astype(np.int64)
    places[(places >= 0) & outside[places]] = -1
    new = np.flatnonzero(~np.isin(present, known) & ~outside)
    return np.concatenate([known, present[new]]), np.concatenate([places, new]), int(outside.sum())


def keep_heldout(tokens: Path, domain: str, kept: Path) -> None:
    """Keeps a domain's held-out shards in the run, so that the ledger measures with the same text to the end."""
    folder = kept / "heldout" / domain
    found = sorted((tokens / domain).glob("heldout-*"))
    if found and not folder.exists():
        with atomic_folder(folder) as temporary:
            _keep(found, temporary)


def keep_base_heldout(base: Path, kept: Path) -> None:
    """The same of held-out shards in the base's own tokens, with its tokenizer; `base` is that part of `tokens`."""
    for folder in sorted(path for path in base.iterdir() if path.is_dir()):
        if not (kept / folder.name).exists():
            with atomic_folder(kept / folder.name) as temporary:
                _keep(sorted(path for path in folder.iterdir() if path.is_file()), temporary)
    write_json(kept / "tokens.json", read_json(base / "tokens.json"))


def _keep(paths: list[Path], folder: Path) -> None:
    """The files in another folder: the same bytes on disk where the system can, which outlive the first name."""
    for path in paths:
        with suppress(OSError):
            os.link(path, folder / path.name)
            continue
        shutil.copyfile(path, folder / path.name)


def _identities(paths: list[Path]) -> np.ndarray:
    """uint64[documents], each different: documents alike in all that counts are told apart by their turn."""
    hashes: list[int] = []
    for path in paths:
        try:
            table = pq.read_table(path, columns=["id", "source", "tokens"])
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} cannot be read ({error}); run the tokenize stage again") from None
        for one in zip(*(column.to_pylist() for column in table.columns), strict=True):
            hashes.append(int.from_bytes(blake2b(repr(one).encode(), digest_size=8).digest(), "little"))
    identities = np.array(hashes, np.uint64)
    order = np.argsort(identities, kind="stable")
    ordered = identities[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)
    turn = np.arange(len(ordered)) - np.repeat(first, np.diff(np.r_[first, len(ordered)]))
    identities[order] += turn.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return identities


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); it numbers the run's documents: put it back, or train anew with "
            "`aurora-m run RECIPE --from train`"
        ) from None
