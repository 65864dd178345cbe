"""What a recipe says of pairs: records that say the same in two languages. Light: the recipe loads it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from ..workspace import Count, RecipeError, Section
from .language_settings import load_language

BETWEEN_SIDES = "\x1e"
"""Stands between the sides of a pair while it is no document yet; a control character, which no clean text has."""


class PairsConfig(Section):
    """Pairs of texts in two languages, written as documents that translate, as many one way as the other.

    What is no pair is dropped, and several pairs become one document, in one direction. See docs/curation.md.
    """

    langs: tuple[str, str]
    """Codes of two language files."""
    fields: dict[str, Annotated[str, Field(min_length=1)]] = {}
    """Language -> the record's field, where it is not named by the code; dots lead into objects (`translation.fi`)."""
    template: str = "{{ source_language }}: {{ source }}\n{{ target_language }}: {{ target }}"
    """A Jinja2 template over `source`, `target`, `source_language` and `target_language` (English names)."""
    separator: str = "\n\n"
    """Stands between two pairs of a document."""
    document_bytes: Annotated[Count, Field(gt=0)] = 4_000
    """Pairs that follow one another and have the same source, url and license share a document of at most about so
    many bytes; 1 gives every pair its own."""
    length_ratio_max: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.5
    """A pair is dropped where the bytes of one side are so many times more, or less, than those of the other side let
    expect by the median of the source."""

    @field_validator("langs")
    @classmethod
    def _two_known_languages(cls, langs: tuple[str, str]) -> tuple[str, str]:
        if langs[0] == langs[1]:
            raise ValueError(f"langs has {langs[0]!r} twice, expected two languages")
        try:
            for lang in langs:
                load_language(lang)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        return langs

    @model_validator(mode="after")
    def _fields_are_of_the_languages(self) -> "PairsConfig":
        unknown = sorted(set(self.fields) - set(self.langs))
        if unknown:
            raise ValueError(f"fields has {unknown[0]!r}, expected {self.langs[0]} or {self.langs[1]}")
        return self

    @property
    def sides(self) -> tuple[str, str]:
        """The record's fields that hold the two sides."""
        first, second = (self.fields.get(lang, lang) for lang in self.langs)
        return first, second

    def join(self, record: Mapping[str, Any]) -> str:
        """Both sides of a record with `BETWEEN_SIDES` between; empty where the record has no text."""
        return BETWEEN_SIDES.join(_text(record, side).replace(BETWEEN_SIDES, " ") for side in self.sides)


def _text(record: Any, field: str) -> str:
    if field not in record:
        for part in field.split("."):
            record = record.get(part) if isinstance(record, Mapping) else None
    else:
        record = record[field]
    return record if isinstance(record, str) else ""
