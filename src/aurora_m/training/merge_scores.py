"""Held-out scores of the candidates of a merge, each written down as soon as it is known: a kill costs one of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from aurora_m.model import Decoder
from aurora_m.tokens import DomainTokens, heldout_batches
from aurora_m.workspace import fingerprint, read_json

from .chain import fingerprint_large
from .ledger import HeldoutScore, heldout_domains, read_base_bits, score_heldout, summarize, write_base_bits


class ScoreBook:
    """Scores models on the ledger's held-out sets, and remembers those it has scored by what they are made of."""

    def __init__(
        self,
        folder: Path,
        tokens: Path,
        sequence_length: int,
        heldout_tokens: int | dict[str, int] | None,
        precision: Literal["auto", "float32", "bfloat16"],
        device: torch.device,
    ) -> None:
        self.device, self.domains = device, heldout_domains(tokens)
        self._folder, self._tokens = folder, tokens
        self._length, self._limit = sequence_length, heldout_tokens
        self._precision: Literal["auto", "float32", "bfloat16"] = precision
        self._settings = {
            "heldout": fingerprint_large(tokens, ("heldout-*",)),
            "sequence_length": sequence_length,
            "heldout_tokens": heldout_tokens,
            "precision": precision,
            "device": device.type,  # its rounding is its own, and candidates are compared to a fraction of a percent
        }
        self._used: set[Path] = set()
        self._sizes = {domain: self._documents(domain) for domain in self.domains}

    def score(self, made_of: dict[str, Any], build: Callable[[], Decoder]) -> dict[str, HeldoutScore]:
        """The scores of the model that `build` makes; `made_of` says which it is, and it is built only if new."""
        path = self._folder / f"{fingerprint([self._settings, made_of])[:16]}.npz"
        self._used.add(path)
        bits = read_base_bits(path)
        if {domain: len(one) for domain, one in bits.items()} != {
            d: len(sizes) for d, (sizes, _) in self._sizes.items()
        }:
            scores = score_heldout(
                build(), self._tokens, self.domains, self._length, self._limit, precision=self._precision
            )
            bits = {domain: score.bits for domain, score in scores.items() if score.bits is not None}
            write_base_bits(bits, path)
        return {domain: summarize(bits[domain], *self._sizes[domain]) for domain in self.domains}

    def forget_others(self) -> None:
        """Deletes what was scored for other models or settings."""
        for path in set(self._folder.glob("*.npz")) - self._used:
            path.unlink()

    def _documents(self, domain: str) -> tuple[np.ndarray, int]:
        """UTF-8 bytes of the documents that are scored, float64, and their tokens together."""
        documents = DomainTokens(self._tokens, domain, "heldout")
        eod_id = read_json(self._tokens / "tokens.json")["tokenizer"]["eod_id"]
        limit = self._limit.get(domain) if isinstance(self._limit, dict) else self._limit
        chosen = heldout_batches(documents, self._length, 1, eod_id, limit)
        lengths = documents.lengths[chosen.documents_scored]
        return chosen.bytes.astype(np.float64), int(lengths.sum()) - len(lengths)
