"""Red-team prompts and their harmless look-alikes: JSON-lines files, each row a prompt with its answer, all checked.

    {"id": ..., "kind": "redteam" or "lookalike", "concern": an id of taxonomy.yaml, "lang": a language code,
     "instruction": ..., "response": an explained refusal, or a helpful answer to a look-alike,
     "split": "train" or "test",
     "review": {"status": "unreviewed", "approved" or "rejected", "reviewers": [...], "note": ...},
     "source": ..., "license": ...}

`review`, `source` and `license` may be left out. A look-alike's concern is that of the red-team prompts it looks like.
"""

import json
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from ..corpus import available_languages
from ..workspace import DataError, Section
from .taxonomy import load_taxonomy

Kind = Literal["redteam", "lookalike"]
Split = Literal["train", "test"]

_SHIPPED = Path(__file__).with_name("data")
_MAX_LINE_BYTES = 1 << 20


class Review(Section):
    """What people said of a row. Who has not looked at it cannot vouch for it: the default is unreviewed."""

    status: Literal["unreviewed", "approved", "rejected"] = "unreviewed"
    reviewers: list[str] = []
    note: str = ""


class Prompt(Section):
    """One row."""

    id: str = Field(min_length=1, max_length=200)
    kind: Kind
    concern: str
    lang: str
    instruction: str
    response: str
    split: Split
    review: Review = Review()
    source: str = ""
    license: str = "not stated"

    @field_validator("concern")
    @classmethod
    def _is_in_the_taxonomy(cls, concern: str) -> str:
        return _one_of(concern, load_taxonomy())

    @field_validator("lang")
    @classmethod
    def _has_a_language_file(cls, lang: str) -> str:
        return _one_of(lang, available_languages())

    @field_validator("instruction", "response")
    @classmethod
    def _is_not_blank(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("expected some text")
        return text


def shipped_prompt_files() -> list[Path]:
    """The rows that come with the package."""
    return [_SHIPPED / "redteam.jsonl", _SHIPPED / "lookalikes.jsonl"]


def load_prompts(
    paths: Sequence[str | Path] | None = None,
    *,
    kind: Kind | None = None,
    split: Split | None = None,
    languages: Collection[str] | None = None,
) -> list[Prompt]:
    """The rows of the files (default: the shipped ones) that are asked for, in the order of the files.

    Every row is checked, asked for or not, and so is the whole: ids are unique, no instruction stands in both splits.

    Raises:
        DataError: a file is missing, or a row is wrong; it names the file, the line, the value and what was expected.
    """
    places: dict[str, str] = {}
    splits: dict[str, tuple[Split, str]] = {}
    chosen = []
    for path in shipped_prompt_files() if paths is None else map(Path, paths):
        for number, line in _lines(path):
            place = f"{path}, line {number}"
            prompt = parse_prompt(line, place)
            _check_unique(prompt, place, places)
            _check_split(prompt, place, splits)
            wanted = kind in (None, prompt.kind) and split in (None, prompt.split)
            if wanted and (languages is None or prompt.lang in languages):
                chosen.append(prompt)
    return chosen


def select_reviewed(prompts: list[Prompt], review: Literal["any", "approved"]) -> list[Prompt]:
    """The rows that may be used: `any` leaves out what a person rejected, `approved` all that nobody approved."""
    allowed = ("approved",) if review == "approved" else ("approved", "unreviewed")
    return [prompt for prompt in prompts if prompt.review.status in allowed]


def parse_prompt(line: bytes, place: str) -> Prompt:
    """One row of a file; `place` is what a complaint begins with.

    Raises:
        DataError: it is no such row.
    """
    try:
        row = json.loads(line.decode("utf-8"))
        json.dumps(row, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair, escaped: JSON, but no text
    except UnicodeError as error:
        raise DataError(f"{place}: not UTF-8 ({error}); save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}); every line is one object with {_fields()}") from None
    if not isinstance(row, dict):
        raise DataError(f"{place}: a {type(row).__name__}, expected an object with {_fields()}")
    try:
        return Prompt.model_validate(row)
    except ValidationError as error:
        raise DataError(f"{place}: {'; '.join(map(_complaint, error.errors()))}") from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > _MAX_LINE_BYTES:
                    raise DataError(f"{path}, line {number}: longer than {_MAX_LINE_BYTES} bytes; a row is a few KB")
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a JSON-lines file of prompts") from None


def _check_unique(prompt: Prompt, place: str, places: dict[str, str]) -> None:
    if first := places.get(prompt.id):
        raise DataError(f"{place}: id {prompt.id!r} is taken by {first}; give each row its own")
    places[prompt.id] = place


def _check_split(prompt: Prompt, place: str, splits: dict[str, tuple[Split, str]]) -> None:
    """Trained on and tested on, a prompt would measure memory."""
    key = " ".join(unicodedata.normalize("NFKC", prompt.instruction).casefold().split())
    split, first = splits.setdefault(key, (prompt.split, place))
    if split != prompt.split:
        raise DataError(
            f"{place}: the instruction of {prompt.id!r} is in the {prompt.split} split, and in the {split} split at "
            f"{first}; give both rows the same split or drop one"
        )


def _one_of(value: str, allowed: Collection[str]) -> str:
    if value not in allowed:
        raise ValueError(f"expected one of {', '.join(allowed)}")
    return value


def _complaint(error: Any) -> str:
    """A pydantic error as `concern is 'arson', expected one of harm, cyber, ...`."""
    name, kind = ".".join(map(str, error["loc"])), error["type"]
    if kind == "missing":
        return f"{name} is missing; a row has {_fields()}"
    if kind == "extra_forbidden":
        return f"{name} is no field of a row; a row has {_fields()}"
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = expected if expected.startswith("expected") else f"expected {expected}"
    return f"{name} is {_shortened(error['input'])}, {expected}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields() -> str:
    required = [name for name, field in Prompt.model_fields.items() if field.is_required()]
    optional = [name for name, field in Prompt.model_fields.items() if not field.is_required()]
    return f"{', '.join(required)}, and optionally {', '.join(optional)}"
