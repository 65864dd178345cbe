"""Prose out of Python programs: the documentation strings of a module as one document."""

import ast
import inspect
import threading
import warnings
from collections.abc import Iterator

_FEWEST_WORDS = 5

# `warnings.catch_warnings` changes the whole process; parsing holds the GIL anyway.
_PARSING = threading.Lock()


def documentation(program: str) -> str | None:
    """The documentation strings of a module, its classes and functions, in order, blank lines between them.

    Strings of fewer than five words are left out: they are labels, not prose. Nothing of the program is run.

    Returns:
        the text, perhaps empty; None where the program does not parse.
    """
    try:
        with _PARSING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = (inspect.cleandoc(text) for text in _strings(tree))
    return "\n\n".join(dict.fromkeys(text for text in found if len(text.split()) >= _FEWEST_WORDS))


def _strings(node: ast.AST) -> Iterator[str]:
    """Docstrings below a node in the order of the source. Only statements are looked into, never expressions."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield text
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for child in getattr(node, name, ()):
            yield from _strings(child)
