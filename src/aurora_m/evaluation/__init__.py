"""What a trained model can do, and what it forgot."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import EvaluateConfig

if TYPE_CHECKING:
    from .forgetting import measure_forgetting

# What needs torch, and so is imported on first use: name -> module.
_LAZY = {"measure_forgetting": "forgetting"}

__all__ = ["EvaluateConfig", "measure_forgetting"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
