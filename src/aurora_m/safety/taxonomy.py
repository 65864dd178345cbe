"""The concerns of the 2023 Executive Order that prompts are written, counted and reported by (`taxonomy.yaml`)."""

from functools import cache
from pathlib import Path

import yaml
from pydantic import Field, TypeAdapter

from ..workspace import Section

_FILE = Path(__file__).with_name("taxonomy.yaml")


class Concern(Section):
    """One kind of danger."""

    id: str = Field(pattern=r"^[a-z]+$")
    name: str
    description: str
    refusal: str
    """What a good refusal does."""


@cache
def load_taxonomy() -> dict[str, Concern]:
    """The six concerns by id, in the order in which they are reported."""
    concerns = TypeAdapter(list[Concern]).validate_python(yaml.safe_load(_FILE.read_text(encoding="utf-8")))
    return {concern.id: concern for concern in concerns}
