"""Batches: packed sequences for training, and the held-out documents laid out so that each token is scored once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aurora_m.workspace import RecipeError

from .config import FimConfig
from .mixture import Mixture, check_shares
from .order import shuffled
from .shards import DomainTokens
from .streams import Documents, DomainStream

IGNORED = -100
_HELDOUT_KEY = 20_240_400_399  # which documents a capped held-out score takes; never changes, so scores stay comparable


@dataclass(frozen=True, slots=True)
class Batch:
    """n packed sequences of L tokens; a sequence is of one domain.

    `input_ids` and `targets` int64[n, L] (targets are one token on; -100 would be ignored, here all count);
    `document_ids` int32[n, L], another number for each document, attention stays within one;
    `positions` int32[n, L], 0 at each document's EOD and at the sequence's start; `domains`, n names; `documents`, n
    lists of the numbers, in their domain, of the documents that a sequence has something of; `weights` float64[n], how
    much a sequence counts in the loss, None where all count alike.
    """

    input_ids: np.ndarray
    targets: np.ndarray
    document_ids: np.ndarray
    positions: np.ndarray
    domains: list[str]
    documents: list[list[int]]
    weights: np.ndarray | None = None


class TrainBatches:
    """The training data of all phases: every domain's cursor, and the mixture of the phase that runs.

    `domains` holds all that any phase uses. `fim_ids` are the tokenizer's, `tokens.json`'s `tokenizer.fim`.

    Raises:
        RecipeError: shares that make no sense, a FIM domain that is unknown, FIM with a tokenizer that has none.
        DataError: a domain has no documents.
    """

    def __init__(
        self,
        domains: Mapping[str, Documents],
        shares: dict[str, float],
        sequence_length: int,
        seed: int,
        eod_id: int,
        fim: FimConfig | None = None,
        fim_ids: dict[str, int] | None = None,
    ) -> None:
        _check_fim(fim, fim_ids, list(domains))
        self.streams = {
            domain: DomainStream(tokens, seed, eod_id, fim if fim and domain in fim.domains else None, fim_ids)
            for domain, tokens in domains.items()
        }
        self.phase, self.tokens = "", 0
        """The phase that runs, and the tokens given since the run began."""
        self._planned: dict[str, float] = {}
        self._left: dict[str, Any] = {}  # cursors of domains that are not open now, for their return
        self.history: list[dict[str, Any]] = []
        """Every mixture so far: `phase`, `tokens` of the run from which it held, `shares`, and `why`."""
        self.start_phase(shares, sequence_length)

    def start_phase(self, shares: dict[str, float], sequence_length: int, name: str = "") -> None:
        """A new mixture and sequence length; the domains' cursors stay where they are."""
        self.phase, self._planned = name, dict(shares)
        self._deal(shares, "phase begins")
        self.sequence_length = sequence_length

    def go_on(self, shares: dict[str, float]) -> None:
        """The recipe's mixture for the phase that runs: where it is not the one of before, it holds from here on."""
        if shares != self._planned:
            self._planned = dict(shares)
            self.change_mixture(shares, "recipe edited")

    def change_mixture(self, shares: dict[str, float], why: str) -> None:
        """Other shares from the next sequence on, exact from there; cursors and sequence length stay. Nothing happens
        where they are those in force.

        Not while a `Feed` holds the batches: it has made some ahead.

        Raises:
            RecipeError: shares that make no sense.
        """
        if {domain: share for domain, share in shares.items() if share > 0} != self._mixture.shares:
            self._deal(shares, why)

    def _deal(self, shares: dict[str, float], why: str) -> None:
        try:
            check_shares(self.phase, shares, self.streams)
        except ValueError as error:
            raise RecipeError(str(error)) from None
        self._mixture = Mixture(shares)
        # Of two at the same place nothing was given by the first.
        before = [entry for entry in self.history if entry["tokens"] < self.tokens]
        entry = {"phase": self.phase, "tokens": self.tokens, "shares": dict(self._mixture.shares), "why": why}
        self.history = [*before, entry]

    @property
    def shares(self) -> dict[str, float]:
        """The mixture now in force."""
        return dict(self._mixture.shares)

    @property
    def epochs(self) -> dict[str, float]:
        """How often each domain's tokens have been given since the run began."""
        return {domain: stream.epochs for domain, stream in self.streams.items()}

    def next_batch(self, sequences: int) -> Batch:
        """The next `sequences` sequences, in the order the mixture deals them."""
        shape = (sequences, self.sequence_length)
        input_ids, targets = np.empty(shape, np.int64), np.empty(shape, np.int64)
        document_ids = np.empty(shape, np.int32)
        domains: list[str] = []
        documents: list[list[int]] = []
        for row in range(sequences):
            domains.append(self._mixture.next_domain())
            window = self.streams[domains[-1]].next(self.sequence_length)
            input_ids[row], targets[row], document_ids[row], numbers = window
            documents.append(numbers)
        self.tokens += input_ids.size
        return Batch(input_ids, targets, document_ids, _positions(document_ids), domains, documents)

    def quarantine(self, documents: Mapping[str, Iterable[int]]) -> None:
        """From here on these documents, numbers by domain, are passed over.

        Raises:
            DataError: nothing would be left of a domain.
        """
        for domain, numbers in documents.items():
            if domain in self.streams:
                self.streams[domain].quarantine(numbers)

    def end_quarantine(self) -> None:
        """Documents are passed over no longer: another phase may have found other ones bad."""
        for stream in self.streams.values():
            stream.end_quarantine()

    def names_of(self, documents: Mapping[str, Iterable[int]]) -> dict[str, list[str]]:
        """The ids of documents, by domain, in the order of their numbers."""
        return {domain: self.streams[domain].ids(numbers) for domain, numbers in documents.items()}

    def state_dict(self) -> dict[str, Any]:
        """All that the next batch depends on; plain numbers and strings."""
        return {
            "sequence_length": self.sequence_length,
            "mixture": self._mixture.state_dict(),
            "phase": self.phase,
            "tokens": self.tokens,
            "planned": dict(self._planned),
            "history": list(self.history),
            "domains": {**self._left, **{domain: stream.state_dict() for domain, stream in self.streams.items()}},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken, in its phase. A domain the state does not know yet starts at its beginning.

        Raises:
            DataError: a cursor does not fit the documents now there.
        """
        self.sequence_length = state["sequence_length"]
        self._mixture.load_state_dict(state["mixture"])
        # Checkpoints written before these were recorded have none.
        given = sum(domain["tokens_given"] for domain in state["domains"].values())
        self.phase, self.tokens = state.get("phase", ""), state.get("tokens", given)
        self.history = list(state.get("history", []))
        self._planned = dict(state.get("planned", self._mixture.shares))
        self._left = {domain: cursor for domain, cursor in state["domains"].items() if domain not in self.streams}
        for domain, stream in self.streams.items():
            if domain in state["domains"]:
                stream.load_state_dict(state["domains"][domain])
            else:
                stream.rewind()


def _check_fim(fim: FimConfig | None, fim_ids: dict[str, int] | None, domains: list[str]) -> None:
    if fim is None:
        return
    unknown = [domain for domain in fim.domains if domain not in domains]
    if unknown:
        raise RecipeError(f"train.fim.domains names {unknown}, which no phase uses; the domains are {domains}")
    if not fim_ids:
        raise RecipeError(
            "train.fim needs a tokenizer with fill-in-the-middle tokens and this one has none; name them in "
            "tokenizer.special, train a tokenizer, or leave train.fim out"
        )


def _positions(document_ids: np.ndarray) -> np.ndarray:
    """int32[n, L]: how far each token is from the first of its document in its row."""
    columns = np.arange(document_ids.shape[1], dtype=np.int32)
    begins = np.zeros(document_ids.shape, dtype=np.int32)
    begins[:, 1:] = np.where(document_ids[:, 1:] != document_ids[:, :-1], columns[1:], 0)
    return columns - np.maximum.accumulate(begins, axis=1)


@dataclass(frozen=True, slots=True)
class HeldoutBatch:
    """Up to `batch_size` windows. As `Batch`, but a target that is EOD or padding is -100, and `document_index`
    int32[n, L] names the held-out document (its number in `DomainTokens`) whose token the target is, -1 if ignored."""

    input_ids: np.ndarray
    targets: np.ndarray
    document_ids: np.ndarray
    positions: np.ndarray
    document_index: np.ndarray


class HeldoutBatches:
    """Held-out documents in their order, packed as in training; iterate as often as wanted.

    Attributes: `documents_scored` int64[k], numbers of the documents whose every token is scored once;
    `bytes` uint32[k], the UTF-8 bytes of each; `windows`, how many sequences there will be.
    """

    def __init__(
        self,
        tokens: DomainTokens,
        sequence_length: int,
        batch_size: int,
        eod_id: int,
        max_tokens: int | None = None,
        chosen: np.ndarray | None = None,
    ) -> None:
        self._tokens, self._length, self._batch_size, self._eod_id = tokens, sequence_length, batch_size, eod_id
        self.documents_scored = choose_documents(tokens, max_tokens) if chosen is None else chosen
        self.bytes = tokens.bytes[self.documents_scored]
        self._ends = np.cumsum(tokens.lengths[self.documents_scored], dtype=np.int64)
        self.windows = -(-int(self._ends[-1]) // sequence_length)

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-self.windows // self._batch_size)

    def __iter__(self) -> Iterator[HeldoutBatch]:
        for window in range(0, self.windows, self._batch_size):
            yield self._batch(window, min(window + self._batch_size, self.windows))

    def _batch(self, first: int, stop: int) -> HeldoutBatch:
        """Windows `first` to `stop`. The stored tokens are the targets; the inputs are the same, shifted by one."""
        begin, size = first * self._length, (stop - first) * self._length
        end = min(begin + size, int(self._ends[-1]))
        stored, index, is_last = self._stored(max(begin - 1, 0), end)
        if begin == 0:  # before the first document's first token stands the EOD that begins its segment
            stored, index, is_last = np.r_[self._eod_id, stored], np.r_[-1, index], np.r_[True, is_last]
        inputs = np.full(size, self._eod_id, np.int64)
        targets = np.full(size, IGNORED, np.int64)
        document_index = np.full(size, -1, np.int32)
        begins_document = np.zeros(size, np.int32)
        real = end - begin
        inputs[:real] = stored[:-1]
        begins_document[:real] = is_last[:-1]
        begins_document[real : real + 1] = 1  # padding is a document of its own
        targets[:real] = np.where(is_last[1:], IGNORED, stored[1:])
        document_index[:real] = np.where(is_last[1:], -1, index[1:])
        shape = (stop - first, self._length)
        document_ids = np.cumsum(begins_document.reshape(shape), axis=1, dtype=np.int32)
        return HeldoutBatch(
            inputs.reshape(shape),
            targets.reshape(shape),
            document_ids,
            _positions(document_ids),
            document_index.reshape(shape),
        )

    def _stored(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places `begin` to `end` of the chosen documents' tokens: tokens, document numbers, whether it is the EOD."""
        first, last = np.searchsorted(self._ends, [begin, end - 1], side="right")
        chosen = self.documents_scored[first : last + 1]
        lengths = self._tokens.lengths[chosen]
        start = int(self._ends[first]) - int(lengths[0])
        # int64: in the uint16 of the files, -100 would be a token.
        tokens = np.concatenate([self._tokens.document(document) for document in chosen.tolist()], dtype=np.int64)
        is_last = np.zeros(len(tokens), dtype=bool)
        is_last[self._ends[first : last + 1] - 1 - start] = True
        cut = slice(begin - start, end - start)
        return tokens[cut], np.repeat(chosen, lengths)[cut], is_last[cut]


def heldout_batches(
    tokens: DomainTokens,
    sequence_length: int,
    batch_size: int,
    eod_id: int,
    max_tokens: int | None = None,
    chosen: np.ndarray | None = None,
) -> HeldoutBatches:
    """The held-out documents as batches to score: those `chosen`, else those of `choose_documents`."""
    return HeldoutBatches(tokens, sequence_length, batch_size, eod_id, max_tokens, chosen)


def choose_documents(tokens: DomainTokens, max_tokens: int | None) -> np.ndarray:
    """The numbers of held-out documents to score: at most `max_tokens` of them, but one at least; None for all.

    Under a cap they are drawn evenly over the split, the same ones every time: the files follow their sources, and the
    first documents alone would speak for the first source.
    """
    everything = np.arange(tokens.documents)
    if max_tokens is None or max_tokens >= tokens.tokens:
        return everything
    order = shuffled(tokens.documents, 0, tokens.documents, _HELDOUT_KEY)
    within = np.cumsum(tokens.lengths[order], dtype=np.int64) <= max_tokens
    return np.sort(order[: max(int(within.sum()), 1)])
