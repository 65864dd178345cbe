"""Where a model comes from, as the run folders tell it: only an ancestor can be merged with what it became."""

from pathlib import Path

from aurora_m.model import same_weights
from aurora_m.workspace import AuroraError, DataError, read_json


def ancestors(model: Path) -> list[Path]:
    """The models that a model in a train folder was trained on from, nearest first, over runs that follow each other.

    A run that continued another's model names its folder in the recipe.
    """
    found: list[Path] = []
    visited: set[Path] = set()
    while model.resolve() not in visited:
        visited.add(model.resolve())
        found += _earlier_in_run(model)
        base = (_read(model.parent.parent.parent / "recipe.json").get("base") or {}).get("path")
        if not base or not Path(base).is_dir():
            break
        model = Path(base)
        found.append(model)
    return found


def _earlier_in_run(model: Path) -> list[Path]:
    """The models of a train folder that came before one of its models, nearest first."""
    train, name = model.parent.parent, model.parent.name
    facts = _read(train / "train.json")
    phases = [phase["name"] for phase in facts.get("phases", [])]
    if name not in [*phases, "merged"]:
        return []
    before = phases if name == "merged" else phases[: phases.index(name)]
    first = [] if facts.get("base_model") != "initial/model" else ["initial"]
    return [folder for one in reversed([*first, *before]) if (folder := train / one / "model").is_dir()]


def check_ancestor(base: Path, final: Path) -> None:
    """Refuses a base that the final model does not descend from; the same weights in another folder will do.

    Raises:
        DataError: it is none of the ancestors, which are named.
    """
    known = ancestors(final)
    if base.resolve() in [one.resolve() for one in known] or any(same_weights(base, one) for one in known):
        return
    names = ", ".join(map(str, known)) or "none that is still there"
    raise DataError(
        f"{base} is not an ancestor of {final}, so that a merge of the two has no meaning: known ancestors are "
        f"{names}; give one of them"
    )


def _read(path: Path) -> dict:
    try:
        value = read_json(path)
    except AuroraError:
        return {}
    return value if isinstance(value, dict) else {}
