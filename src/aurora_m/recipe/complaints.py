"""Turns validation errors into messages a recipe's author can act on: line, key, what was expected, nearest key."""

import difflib
import types
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ..workspace import RecipeError
from .lines import LocatedYaml, Location


def explain_validation(error: ValidationError, model: type[BaseModel], source: LocatedYaml) -> RecipeError:
    """One message for all errors of a recipe, each with its line and the nearest valid key."""
    messages = []
    for problem in error.errors():
        location = _plain_location(problem["loc"], source.data)
        line = source.line(location)
        where = ".".join(str(part) for part in location) or "the recipe"
        prefix = f"line {line}: " if line else ""
        messages.append(f"{prefix}{where}: {_sentence(problem, location, model)}")
    listing = "\n  ".join(dict.fromkeys(messages))
    return RecipeError(f"{source.path} is not a valid recipe:\n  {listing}")


def nearest(word: str, candidates: list[str]) -> str:
    """`; did you mean 'x'?` or a list of what is known."""
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(sorted(candidates))}" if candidates else "nothing is allowed here"


def section_at(model: Any, location: Location) -> type[BaseModel] | None:
    """The section model that a location of the recipe leads to; None where it leads to a plain value."""
    for part in location:
        model = _step(model, part)
        if model is None:
            return None
    return _as_section(model)


def _sentence(problem: Any, location: Location, model: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        section = section_at(model, location[:-1])
        keys = list(section.model_fields) if section else []
        return f"unknown key; {nearest(str(location[-1]), keys)}"
    if problem["type"] == "missing":
        return "is missing, and it has no default"
    text = problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    shown = f" (given: {value!r})" if isinstance(value, str | int | float | bool | None) else ""
    return text if repr(value) in text else f"{text}{shown}"


def _plain_location(location: tuple, data: Any) -> Location:
    """Pydantic's location without the tags it adds for unions and dict keys: only what stands in the recipe."""
    plain: list[str | int] = []
    for part in location:
        if isinstance(data, dict):
            if part in data:
                data = data[part]
            elif part != location[-1]:
                continue
            else:
                data = None
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        plain.append(part)
    return tuple(plain)


def _step(annotation: Any, part: str | int) -> Any:
    section = _as_section(annotation)
    if section is not None:
        field = section.model_fields.get(str(part))
        return field.annotation if field else None
    for option in _options(annotation):
        if get_origin(option) is dict:
            return get_args(option)[1]
        if get_origin(option) is list:
            return get_args(option)[0]
    return None


def _as_section(annotation: Any) -> type[BaseModel] | None:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _options(annotation: Any) -> tuple:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
