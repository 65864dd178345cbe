"""One domain as an endless stream of tokens whose order is a pure function of (seed, domain, cursor).

The stream is EOD doc EOD doc EOD ...: EOD *begins* a segment, so it serves as the beginning-of-text token too.
Every epoch visits each document once, in an order of its own. Nothing is kept per document: the order is computed
where it is needed, by a keyed bijection instead of a stored permutation, so a cursor can be anywhere at no cost.
Documents may join in the middle of an epoch (visits.py), be absent from some moment on, and have weights
(weighting.py): then what is called an epoch here is one of an epoch's rounds.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from aurora_m.workspace import DataError

from .config import FimConfig
from .order import draws, named_key
from .visits import Visits
from .weighting import rounds_of, visited

_BLOCK = 1024  # documents whose order is worked out at a time


class Documents(Protocol):
    """What a stream needs of its domain; `DomainTokens` is one.

    `absent`, bool[documents]: True where a document that once was there is gone; None where none is.
    `weights`, float32[documents]: how often each is read an epoch, 0 where it is absent; None where all are 1.
    `tokens_per_epoch`: tokens times weights.
    """

    domain: str
    documents: int
    tokens: int
    tokens_per_epoch: float
    absent: np.ndarray | None
    weights: np.ndarray | None

    def document(self, index: int) -> np.ndarray: ...

    def ids(self, numbers: Iterable[int]) -> list[str]: ...


class DomainStream:
    """A cursor over a domain: epoch, position in that epoch's order, token offset within the segment (0 is its EOD).

    Where documents joined within the epoch, the position is in what was left then (-1: still in the document of then).

    `fim` is None where the domain is not rearranged; `fim_ids` holds the ids of "prefix", "middle", "suffix".

    Raises:
        DataError: the domain has no documents, or their weights come to less than one.
    """

    def __init__(
        self,
        tokens: Documents,
        seed: int,
        eod_id: int,
        fim: FimConfig | None = None,
        fim_ids: dict[str, int] | None = None,
    ) -> None:
        if not _present(tokens):
            raise DataError(f"domain '{tokens.domain}' has no documents to train on; give it sources or leave it out")
        self._documents, self._seed, self._eod_id, self._fim, self._fim_ids = tokens, seed, eod_id, fim, fim_ids
        self._quarantined: set[int] = set()
        self._rounds = rounds_of(tokens.weights)
        self._check_weights()
        self.rewind()

    def rewind(self) -> None:
        """The cursor to the beginning of the first epoch."""
        self.epoch = self.tokens_given = 0
        self._begin_epoch()
        self._land()

    @property
    def epochs(self) -> float:
        """How often the domain's tokens have been given so far, as a fraction."""
        return self.tokens_given / self._documents.tokens_per_epoch

    def quarantine(self, documents: Iterable[int]) -> None:
        """From here on these documents, by their numbers, are passed over; a cursor inside one moves to the next.

        Raises:
            DataError: no document would be left.
        """
        self._quarantined.update(documents)
        absent = self._documents.absent
        counted = self._quarantined if absent is None else [one for one in self._quarantined if not absent[one]]
        if len(counted) >= _present(self._documents):
            raise DataError(
                f"domain '{self._documents.domain}': all {_present(self._documents)} documents are quarantined"
            )
        self._check_weights()
        if self._number in self._quarantined:
            self._next_segment()

    def _check_weights(self) -> None:
        """Refuses documents of which none might ever be visited."""
        weights = self._documents.weights
        if weights is None:
            return
        left = float(weights.sum(dtype=np.float64)) - float(weights[list(self._quarantined)].sum(dtype=np.float64))
        if left < 1:
            raise DataError(
                f"domain '{self._documents.domain}': the weights of its documents come to {left:.3g}, less than one "
                "document an epoch; raise them or leave the domain out"
            )

    def end_quarantine(self) -> None:
        """Documents are passed over no longer."""
        self._quarantined.clear()

    def ids(self, numbers: Iterable[int]) -> list[str]:
        """The ids of documents by their numbers."""
        return self._documents.ids(numbers)

    def next(self, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
        """The next window: inputs int64[length], targets int64[length] (one token on), document ids int32[length], and
        the numbers of its documents in their order.

        The cursor moves on by `length`. Document ids rise by one at each EOD input; only their changes mean anything.
        """
        numbers: list[int] = []
        stream = np.empty(length + 1, dtype=np.int64)
        document_ids = np.zeros(length + 1, dtype=np.int32)
        filled = 0
        while filled <= length:
            if self.offset == len(self._segment):
                self._next_segment()
            if self.offset == 0:
                document_ids[filled] = 1
            numbers.append(self._number)
            piece = self._segment[self.offset : self.offset + length + 1 - filled]
            stream[filled : filled + len(piece)] = piece
            filled += len(piece)
            self.offset += len(piece)
        self.offset -= 1  # the last target is the next window's first input
        self.tokens_given += length
        return stream[:-1], stream[1:], np.cumsum(document_ids[:-1], dtype=np.int32), numbers

    def state_dict(self) -> dict[str, Any]:
        return {
            "documents": self._documents.documents,
            "epoch": self.epoch,
            "position": self.position,
            "offset": self.offset,
            "tokens_given": self.tokens_given,
            "joined": [list(layer) for layer in self._frozen],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the cursor back. Documents that came after the state was taken join: they are visited among those that
        the epoch has still to visit.

        Raises:
            DataError: the state is of other documents.
        """
        before = state["documents"]
        self.epoch, self.position, self.offset = state["epoch"], state["position"], state["offset"]
        self.tokens_given = state["tokens_given"]
        self._frozen = [tuple(layer) for layer in state.get("joined", [])]
        new = self._documents.documents - before
        if new >= 0 and -bool(self._frozen) <= self.position < len(self._visits_of(before)):
            if new:
                self._frozen.append((self._visits_of(before).last_joined, self.position))
                self.position = -1
            self._visits, self._block = self._visits_of(self._documents.documents), None
            if not self._is_passed_over(self._number):
                self._segment = self._load_segment()
                if 0 <= self.offset < len(self._segment):
                    return
            else:
                self._next_segment()
                return
        raise DataError(
            f"domain '{self._documents.domain}': the checkpoint stands at document {self.position} of "
            f"{before}, token {self.offset}, which is not a place in the {self._documents.documents} "
            "documents now there; train again on the new data, or put the old token files back"
        )

    def _visits_of(self, documents: int) -> Visits:
        return Visits((self._seed, self._documents.domain, self.epoch), self._frozen, documents)

    def _begin_epoch(self) -> None:
        self._frozen: list[tuple[int, ...]] = []
        self.position, self._block = 0, None
        self._visits = self._visits_of(self._documents.documents)

    def _is_passed_over(self, number: int) -> bool:
        absent = self._documents.absent
        if self._visited is not None and not self._visited[self.position - (self._block or 0)]:
            return True
        return number in self._quarantined or (absent is not None and bool(absent[number]))

    def _next_segment(self) -> None:
        """The cursor to the beginning of the next document that is not passed over."""
        self.position += 1
        self._land()

    def _land(self) -> None:
        """The cursor to the beginning of the document at the position, or of the next that is not passed over."""
        while True:
            if self.position == len(self._visits):
                self.epoch += 1
                self._begin_epoch()
            if not self._is_passed_over(self._number):
                break
            self.position += 1
        self._segment = self._load_segment()
        self.offset = 0

    @property
    def _number(self) -> int:
        """The document at the cursor."""
        if self._block is None or not 0 <= self.position - self._block < len(self._order):
            self._load_block()
        assert self._block is not None
        return self._order[self.position - self._block]

    def _load_segment(self) -> np.ndarray:
        """The segment at the cursor: EOD, then the document, rearranged where its turn for it has come."""
        text = self._documents.document(self._number)[:-1]
        place = self.position - (self._block or 0)
        if self._fim and self._fim_draws[place, 0] < self._fim.rate:
            return self._fill_in_the_middle(text, self._fim_draws[place])
        segment = np.empty(len(text) + 1, dtype=text.dtype)
        segment[0] = self._eod_id
        segment[1:] = text
        return segment

    def _load_block(self) -> None:
        self._block = self.position // _BLOCK * _BLOCK if self.position >= 0 else -1
        order = self._visits.numbers(self._block, min(max(self._block, 0) + _BLOCK, len(self._visits)))
        names, weights = (self._seed, self._documents.domain), self._documents.weights
        self._order = order.tolist()
        self._visited = None
        if weights is not None:
            self._visited = visited(weights[order], order, self.epoch, self._rounds, names).tolist()
        self._fim_draws = draws(order, 4, named_key("fim", *names, self.epoch)) if self._fim else np.empty(0)

    def _fill_in_the_middle(self, text: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """EOD and the document as prefix-suffix-middle or suffix-prefix-middle, cut at two random places.

        Formats as StarCoder was trained on (Bavarian et al. 2022, section 3; SPM in its second variant).
        """
        assert self._fim and self._fim_ids
        first, second = sorted((draw[2:] * (len(text) + 1)).astype(int).tolist())
        prefix, middle, suffix = text[:first], text[first:second], text[second:]
        begin, mid, end = (np.array([self._fim_ids[name]], text.dtype) for name in ("prefix", "middle", "suffix"))
        eod = np.array([self._eod_id], text.dtype)
        if draw[1] < self._fim.spm_rate:
            return np.concatenate([eod, begin, end, suffix, mid, prefix, middle])
        return np.concatenate([eod, begin, prefix, end, suffix, mid, middle])


def _present(tokens: Documents) -> int:
    return tokens.documents - (0 if tokens.absent is None else int(tokens.absent.sum()))
