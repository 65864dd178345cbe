"""A language is a data file, not code: no string in the package names one."""

import ast
import re
from pathlib import Path

import pytest

import aurora_m
from aurora_m.corpus.language_settings import available_languages, load_language

PACKAGE = Path(aurora_m.__file__).parent
CODES = set(available_languages())
NAMES = re.compile("|".join(rf"\b{load_language(code).name}\b" for code in sorted(CODES)), re.IGNORECASE)


def strings(source: str) -> list[tuple[int, str]]:
    """All strings of a program with their lines, docstrings left out: prose may give an example."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
    return [(node.lineno, node.value) for node in found if isinstance(node.value, str)]


def names_a_language(string: str) -> bool:
    return string.strip().lower() in CODES or bool(NAMES.search(string))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_string_of_the_code_names_a_language(path):
    found = [
        f"{path.name}:{line}: {text!r}" for line, text in strings(path.read_text("utf-8")) if names_a_language(text)
    ]
    assert not found, f"{found}: what is particular to a language belongs into corpus/languages/<code>.yaml"


def test_the_check_sees_what_it_should():
    source = '"""Docstring on Finnish, fi."""\nx = {"fi": 1}\ny = f"in Hindi {x}"\nz = "file"\n'
    assert [line for line, text in strings(source) if names_a_language(text)] == [2, 3]
