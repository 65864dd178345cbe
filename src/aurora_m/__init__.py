"""Aurora-M: continual pretraining of open language models for your languages, inside a forgetting budget.

from aurora_m import Recipe, run
run(Recipe.load("recipes/quickstart.yaml"))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline import run
    from .recipe import Recipe
    from .workspace import AuroraError

__version__ = "0.1.0"
__all__ = ["AuroraError", "Recipe", "run"]


def __getattr__(name: str):
    # Loaded on first use: `aurora-m --help` must not wait for pydantic and torch.
    modules = {"Recipe": "recipe", "run": "pipeline", "AuroraError": "workspace"}
    if name in modules:
        return getattr(import_module(f".{modules[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
