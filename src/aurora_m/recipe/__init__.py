"""The recipe: one YAML file that a whole run follows from."""

from .explain import explain_recipe
from .planned import planned_model
from .recipe import Recipe

__all__ = ["Recipe", "explain_recipe", "planned_model"]
