"""Tuning examples as batches: the instruction format, examples packed into sequences, loss on responses only.

1. encode     prompts to `Example`s, tokens of instruction and response; too long ones lose their end
2. pack       each epoch shuffles the examples and fits them into sequences, whole, one document each
3. interleave pretraining text takes its share of the sequences, where `align.replay` asks for it

Every order is a pure function of (seed, epoch), so a cursor is the epoch and the number of sequences dealt from it.
"""

import bisect
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..model import IGNORED
from ..tokens import Batch, Mixture, Tokenizer, TrainBatches
from ..workspace import DataError
from .config import TUNING_DOMAIN
from .prompts import Prompt

INSTRUCTION_TEMPLATE = "### Instruction:\n{instruction}\n\n### Response:\n"

_REPLAY = "replay"


def format_instruction(instruction: str) -> str:
    """The text a model is given; its response follows without a space."""
    return INSTRUCTION_TEMPLATE.replace("{instruction}", instruction.strip())


# ----------------------------------------------------------------------------------------------- encode
@dataclass(frozen=True, slots=True)
class Example:
    """One document: `tokens` int32[n + 1] is EOD, instruction, response, EOD; n tokens go in, n are predicted.

    `response` is the number of the last ones that are scored (a truncated response has lost its EOD).
    """

    tokens: np.ndarray
    response: int
    truncated: bool

    @property
    def length(self) -> int:
        """Places it takes in a sequence."""
        return len(self.tokens) - 1


def encode_prompts(prompts: list[Prompt], tokenizer: Tokenizer, sequence_length: int) -> list[Example | None]:
    """An example for each prompt, None where the instruction alone fills a sequence and nothing would be scored.

    Instruction and response are encoded apart, so that the instruction's tokens are those of `measures`.
    """
    instructions = tokenizer.encode_batch([format_instruction(prompt.instruction) for prompt in prompts])
    responses = tokenizer.encode_batch([prompt.response.strip() for prompt in prompts])
    examples = []
    for instruction, response in zip(instructions, responses, strict=True):
        tokens = [tokenizer.eod_id, *instruction, *response, tokenizer.eod_id]
        kept = np.array(tokens[: sequence_length + 1], np.int32)
        scored = len(kept) - 1 - len(instruction)
        examples.append(Example(kept, scored, truncated=len(kept) < len(tokens)) if scored > 0 else None)
    return examples


# ----------------------------------------------------------------------------------------------- pack
def pack(lengths: list[int], sequence_length: int) -> list[list[int]]:
    """Sequences as lists of example numbers, none longer than `sequence_length`, filled best-fit in the order given."""
    sequences: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (places left, sequence), sorted
    for number, length in enumerate(lengths):
        place = bisect.bisect_left(room, (length, -1))
        if place < len(room):
            left, sequence = room.pop(place)
        else:
            left, sequence = sequence_length, len(sequences)
            sequences.append([])
        sequences[sequence].append(number)
        if left > length:
            bisect.insort(room, (left - length, sequence))
    return sequences


class ResponseBatches:
    """The source of batches of the phase SFT: endless epochs over the examples, with pretraining text between them.

    `replay` deals its own mixture of domains and has `replay_share` of the sequences. Batches are as those of
    pretraining (`tokens.Batch`), but targets in instructions and padding are -100; the examples' domain is "safety".

    Raises:
        DataError: there are no examples.
    """

    def __init__(
        self,
        examples: list[Example],
        sequence_length: int,
        seed: int,
        eod_id: int,
        replay: TrainBatches | None = None,
        replay_share: float = 0.0,
    ) -> None:
        if not examples:
            raise DataError("there are no examples to tune on")
        self.examples, self.sequence_length, self.replay = examples, sequence_length, replay
        self._seed, self._eod_id = seed, eod_id
        self._mixture = Mixture({TUNING_DOMAIN: 1 - replay_share, _REPLAY: replay_share if replay else 0.0})
        self.epoch = self.position = 0
        self._quarantined: set[int] = set()
        # The epoch at hand and the one before it: counting sequences ahead and dealing them need no more.
        self._sequences = lru_cache(maxsize=2)(self._pack_epoch)

    @property
    def epochs(self) -> dict[str, float]:
        """How often the examples have been given, and each replayed domain's tokens."""
        given = self.epoch + self.position / len(self._sequences(self.epoch))
        return {TUNING_DOMAIN: given, **(self.replay.epochs if self.replay else {})}

    @property
    def response_tokens(self) -> int:
        """Response tokens scored so far."""
        dealt = self._sequences(self.epoch)[: self.position]
        this_epoch = sum(self.examples[number].response for numbers in dealt for number in numbers)
        return self.epoch * sum(example.response for example in self.examples) + this_epoch

    def count_sequences(self, epochs: float) -> int:
        """Sequences in which every example comes `epochs` times, replay included."""
        whole, part = divmod(epochs, 1)
        tuning = sum(len(self._sequences(epoch)) for epoch in range(int(whole)))
        tuning += math.ceil(part * len(self._sequences(int(whole)))) if part else 0
        return math.ceil(tuning / self._mixture.shares[TUNING_DOMAIN] - 1e-9)

    def next_batch(self, sequences: int) -> Batch:
        """The next `sequences` sequences."""
        batches = []
        for _ in range(sequences):
            if self.replay and self._mixture.next_domain() == _REPLAY:
                batches.append(self.replay.next_batch(1))
            else:
                batches.append(self._next_tuning())
        return Batch(
            *(np.concatenate([getattr(batch, name) for batch in batches]) for name in _ARRAYS),
            domains=[domain for batch in batches for domain in batch.domains],
            documents=[numbers for batch in batches for numbers in batch.documents],
        )

    def quarantine(self, documents: Mapping[str, Iterable[int]]) -> None:
        """From here on no sequence with one of these examples, or documents of the replay, is given.

        Raises:
            DataError: nothing would be left.
        """
        self._quarantined.update(documents.get(TUNING_DOMAIN, ()))
        if all(self._quarantined.intersection(numbers) for numbers in self._sequences(self.epoch)):
            raise DataError(f"all {len(self.examples)} tuning examples are quarantined")
        if self.replay:
            self.replay.quarantine(documents)

    def names_of(self, documents: Mapping[str, Iterable[int]]) -> dict[str, list[str]]:
        """What people know documents by: examples by their number."""
        replayed = {domain: numbers for domain, numbers in documents.items() if domain != TUNING_DOMAIN}
        names = self.replay.names_of(replayed) if self.replay else {}
        return {TUNING_DOMAIN: [str(number) for number in documents.get(TUNING_DOMAIN, ())], **names}

    def state_dict(self) -> dict[str, Any]:
        return {
            "examples": len(self.examples),
            "epoch": self.epoch,
            "position": self.position,
            "mixture": self._mixture.state_dict(),
            "replay": self.replay and self.replay.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken.

        Raises:
            DataError: it is of other examples, or of another replay.
        """
        if state["examples"] != len(self.examples) or (state["replay"] is None) != (self.replay is None):
            raise DataError(
                f"the checkpoint was tuned on {state['examples']} examples, replay: {state['replay'] is not None}; now "
                f"there are {len(self.examples)}, replay: {self.replay is not None}; delete it to start anew"
            )
        self.epoch, self.position = state["epoch"], state["position"]
        self._mixture.load_state_dict(state["mixture"])
        if self.replay:
            self.replay.load_state_dict(state["replay"])

    def _next_tuning(self) -> Batch:
        while self._quarantined.intersection(self._sequences(self.epoch)[self.position]):
            self._advance()
        batch = self._lay_out(self._sequences(self.epoch)[self.position])
        self._advance()
        return batch

    def _advance(self) -> None:
        self.position += 1
        if self.position == len(self._sequences(self.epoch)):
            self.epoch, self.position = self.epoch + 1, 0

    def _pack_epoch(self, epoch: int) -> list[list[int]]:
        def draw(number: int) -> bytes:
            """What an example is sorted by; NumPy's own shuffles may change between its versions."""
            return hashlib.sha256(f"{self._seed} {epoch} {number}".encode()).digest()

        order = sorted(range(len(self.examples)), key=draw)
        packed = pack([self.examples[number].length for number in order], self.sequence_length)
        return [[order[place] for place in places] for places in packed]

    def _lay_out(self, numbers: list[int]) -> Batch:
        """One sequence: the examples, each a document of its own with positions from 0, then padding, likewise."""
        input_ids = np.full((1, self.sequence_length), self._eod_id, np.int64)
        targets = np.full((1, self.sequence_length), IGNORED, np.int64)
        document_ids = np.zeros((1, self.sequence_length), np.int32)
        positions = np.zeros((1, self.sequence_length), np.int32)
        start = 0
        for document, number in enumerate(numbers, start=1):
            example = self.examples[number]
            end = start + example.length
            input_ids[0, start:end] = example.tokens[:-1]
            targets[0, end - example.response : end] = example.tokens[-example.response :]
            document_ids[0, start:end] = document
            positions[0, start:end] = np.arange(example.length)
            start = end
        positions[0, start:] = np.arange(self.sequence_length - start)
        return Batch(input_ids, targets, document_ids, positions, [TUNING_DOMAIN], [numbers])


_ARRAYS = ("input_ids", "targets", "document_ids", "positions")
