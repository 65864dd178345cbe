"""The architecture a recipe trains, without its weights: what a plan needs."""

from pathlib import Path

from ..model import ModelConfig
from ..workspace import RecipeError
from .recipe import Recipe


def planned_model(recipe: Recipe, base_config: Path | None = None) -> ModelConfig:
    """The model of a recipe: its architecture, its base's config.json, or the given one; with its new tokens, if any.

    Raises:
        RecipeError: the base is not a folder here and no config.json is given, or the vocabulary's size is not known.
        DataError: a file is missing or damaged.
    """
    from ..model import read_config

    if base_config is not None:
        return _extended(recipe, read_config(base_config))
    if recipe.base.architecture:
        return recipe.base.architecture.model_config_for(_vocabulary_size(recipe))
    folder = Path(recipe.base.path or "").expanduser()
    if not folder.is_dir():
        raise RecipeError(
            f"base {recipe.base.path} is not a folder here, and a plan fetches nothing; give its configuration with "
            "--base-config config.json (StarCoderPlus: recipes/bases/starcoderplus.json)"
        )
    return _extended(recipe, read_config(folder))


def _extended(recipe: Recipe, model: ModelConfig) -> ModelConfig:
    # Where the base's vocabulary is padded, that much less would be added; a plan does not read the tokenizer for it.
    more = recipe.tokenizer.extend.new_tokens if recipe.tokenizer.extend else 0
    return model.model_copy(update={"vocab_size": model.vocab_size + more})


def _vocabulary_size(recipe: Recipe) -> int:
    if recipe.tokenizer.train:
        return recipe.tokenizer.train.vocab_size
    path = Path(recipe.tokenizer.path or "")
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise RecipeError(f"tokenizer {recipe.tokenizer.path} is not here, so the vocabulary's size is not known")
    from ..tokens import load_tokenizer

    more = recipe.tokenizer.extend.new_tokens if recipe.tokenizer.extend else 0
    return load_tokenizer(folder, recipe.tokenizer.special).vocab_size + more
