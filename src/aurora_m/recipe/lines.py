"""YAML that remembers where each value stands, so that an error can name the line."""

from pathlib import Path
from typing import Any

import yaml

from ..workspace import RecipeError

Location = tuple[str | int, ...]


class LocatedYaml:
    """A parsed YAML file: `.data` (plain dicts, lists, scalars) and the line of every key and item."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Location, int] = {}
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RecipeError(f"recipe {path} does not exist; `ls {path.parent}` shows what is there") from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"recipe {path} cannot be read as UTF-8 text: {error}") from None
        self.data: Any = self._parse(text)
        if not isinstance(self.data, dict):
            raise RecipeError(f"recipe {path} holds no sections; expected keys such as name, base, domains, train")

    def line(self, location: Location) -> int | None:
        """The line of the deepest known part of `location`, counted from 1."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location)

    def _parse(self, text: str) -> Any:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                self._record(node, (), set())
            return None if node is None else loader.construct_document(node)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}: " if mark else ""
            raise RecipeError(f"{self.path}: {where}not valid YAML: {getattr(error, 'problem', error)}") from None
        finally:
            loader.dispose()

    def _record(self, node: yaml.Node, location: Location, ancestors: set[int]) -> None:
        if id(node) in ancestors:
            raise RecipeError(f"{self.path}: line {node.start_mark.line + 1}: an alias refers to itself")
        inside = ancestors | {id(node)}
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                child = (*location, key.value)
                if child in self.lines:
                    first = self.lines[child]
                    raise RecipeError(
                        f"{self.path}: line {key.start_mark.line + 1}: key {key.value!r} was already given in line "
                        f"{first}; YAML would silently keep only one, so delete the other"
                    )
                self.lines[child] = key.start_mark.line + 1
                self._record(value, child, inside)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[(*location, index)] = item.start_mark.line + 1
                self._record(item, (*location, index), inside)
