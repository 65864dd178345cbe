"""The recipe: composes the stages' own config models, loads and checks the YAML, resolves its paths."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from ..corpus import CurateConfig, DomainConfig, SourceConfig, available_languages
from ..evaluation import EvaluateConfig
from ..model import BaseConfig
from ..release import ReleaseConfig
from ..safety import AlignConfig
from ..tokens import TokenizerConfig, check_shares
from ..training import TrainConfig
from ..workspace import RecipeError, Section
from .complaints import explain_validation, nearest, section_at
from .lines import LocatedYaml

# Names become folders of the run and keys of every table.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Recipe(Section):
    """Everything a run does. Every stage is handed its own section, with paths already absolute."""

    name: Name
    description: str = ""
    seed: int = Field(default=0, ge=0)
    paths: dict[str, str] = {}  # shorthands: `{data}` in any path below stands for paths.data
    base: BaseConfig
    domains: dict[Name, DomainConfig] = Field(min_length=1)
    curate: CurateConfig = CurateConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    train: TrainConfig
    align: AlignConfig = AlignConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    release: ReleaseConfig = ReleaseConfig()

    @classmethod
    def load(cls, path: str | Path, changes: list[str] | None = None) -> "Recipe":
        """Reads and checks a recipe; `changes` are `key.path=value` texts laid over it (values in YAML).

        Raises:
            RecipeError: with line numbers, naming every wrong key and value at once.
        """
        source = LocatedYaml(Path(path))
        for change in changes or []:
            apply_change(source.data, change)
        try:
            data = resolve_paths(source.data, Path(path).resolve().parent)
            return cls.model_validate(data)
        except ValidationError as error:
            raise explain_validation(error, cls, source) from None

    @model_validator(mode="after")
    def _rooms_fit_together(self) -> "Recipe":
        complaints = [*self._language_complaints(), *self._domain_complaints(), *self._tokenizer_complaints()]
        if self.train.lora and self.base.architecture:
            complaints.append("train.lora: adapts an existing model; give base.path, or leave lora out")
        if self.train.embeddings_first and self.base.architecture:
            complaints.append("train.embeddings_first: is for an existing model; give base.path, or leave it out")
        if self.train.lora and self.tokenizer.extend:
            complaints.append("train.lora: does not train the rows of tokens, so it does not go with tokenizer.extend")
        if complaints:
            raise ValueError("; ".join(complaints))
        return self

    def _language_complaints(self) -> list[str]:
        known = available_languages()
        return [
            f"domains.{name}.lang: {domain.lang!r} is not a known language; {nearest(domain.lang, known)} "
            "(a language is a file in corpus/languages, see CONTRIBUTING)"
            for name, domain in self.domains.items()
            if domain.lang is not None and domain.lang not in known
        ]

    def _domain_complaints(self) -> list[str]:
        complaints = []
        for phase in self.train.phases:
            dealt = phase.rest.domains if phase.rest else []
            # A rule's shares are known once there are tokens; names and sum can be checked with any.
            evenly = (1 - sum(phase.mixture.values())) / max(1, len(dealt))
            try:
                check_shares(phase.name, {**phase.mixture, **dict.fromkeys(dealt, evenly)}, list(self.domains))
            except ValueError as error:
                complaints.append(str(error))
        others = {
            "train.fim": self.train.fim.domains if self.train.fim else [],
            "train.guardrails": list(self.train.guardrails.budget) if self.train.guardrails else [],
        }
        for phase in self.train.phases:
            others[f"phase {phase.name}: loss.weights"] = list(phase.loss.weights) if phase.loss else []
        if self.tokenizer.train:
            others["tokenizer.train"] = self.tokenizer.train.domains
        if self.tokenizer.extend:
            others["tokenizer.extend"] = self.tokenizer.extend.domains
        if self.align.replay:
            others["align.replay.mixture"] = list(self.align.replay.mixture or {})
        for classifier in self.curate.classifiers:
            others[f"curate.classifiers: {classifier.name}"] = classifier.domains or []
        others["base.knows"] = self.base.knows
        for where, names in others.items():
            complaints += [
                f"{where}: domain {name!r} is not among the domains; {nearest(name, list(self.domains))}"
                for name in names
                if name not in self.domains
            ]
        return complaints

    def _tokenizer_complaints(self) -> list[str]:
        if self.base.architecture and not (self.tokenizer.train or self.tokenizer.path):
            return ["tokenizer: a base trained from scratch brings none; give tokenizer.train or tokenizer.path"]
        return []

    def sampled(self, documents: int) -> "Recipe":
        """The recipe on the first so many documents of every source, under a name of its own."""
        domains = {
            name: domain.model_copy(update={"sources": [_limited(source, documents) for source in domain.sources]})
            for name, domain in self.domains.items()
        }
        return self.model_copy(update={"name": f"{self.name}-sample", "domains": domains})

    def to_yaml(self) -> str:
        """The recipe as YAML, defaults left out, paths absolute."""
        return yaml.safe_dump(
            self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True, width=100
        )


def _limited(source: SourceConfig, documents: int) -> SourceConfig:
    return source.model_copy(update={"limit_documents": min(documents, source.limit_documents or documents)})


def apply_change(data: dict[str, Any], change: str) -> None:
    """Lays one `key.path=value` over recipe data. Items of a list are named by number, or by their `name`.

    Raises:
        RecipeError: no such key, with the nearest one.
    """
    key_path, equals, text = change.partition("=")
    parts = key_path.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {change!r}: expected key.path=value, such as train.phases.CAP.tokens=2M")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {change!r}: the value is not valid YAML: {error}") from None
    place: Any = data
    walked: list[str | int] = []
    for part in parts[:-1]:
        key = _key_in(place, part, change, tuple(walked))
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[key]
        walked.append(key)
    place[_key_in(place, parts[-1], change, tuple(walked))] = value


def _key_in(place: Any, part: str, change: str, walked: tuple) -> str | int:
    if isinstance(place, list):
        names = [str(item.get("name", "")) if isinstance(item, dict) else "" for item in place]
        if part in names:
            return names.index(part)
        if part.isdigit() and int(part) < len(place):
            return int(part)
        known = [name for name in names if name] or [f"0 to {len(place) - 1}"]
        raise RecipeError(f"--set {change!r}: no item {part!r} in {'.'.join(map(str, walked))}; {nearest(part, known)}")
    if not isinstance(place, dict):
        where = ".".join(map(str, walked))
        raise RecipeError(f"--set {change!r}: {where} is the value {place!r}, it has no key {part!r}")
    section = section_at(Recipe, walked)
    if section is not None and part not in section.model_fields:
        raise RecipeError(f"--set {change!r}: unknown key {part!r}; {nearest(part, list(section.model_fields))}")
    return part


def resolve_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A copy of the recipe's data with `{shorthand}` filled in and relative paths made absolute from `folder`.

    Only keys that hold paths are touched; addresses with a scheme, `stdlib:` and names on the Hugging Face hub stay.
    """
    shorthands = {
        name: _absolute(str(value), folder) for name, value in (data.get("paths") or {}).items() if value is not None
    }
    resolved = dict(data)
    if shorthands:
        resolved["paths"] = shorthands
    resolved["domains"] = {
        name: _resolve_sources(domain, folder, shorthands) for name, domain in _items(data.get("domains"))
    } or data.get("domains")
    if isinstance(data.get("curate"), dict):
        resolved["curate"] = _resolve_curate(data["curate"], folder, shorthands)
    for section in ("base", "tokenizer"):
        value = data.get(section)
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            path = _fill(value["path"], shorthands)
            # `org/name` is a hub id unless such a folder stands beside the recipe.
            local = path.startswith((".", "/", "~")) or (folder / path).exists()
            resolved[section] = {**value, "path": _absolute(path, folder) if local else path}
    align = data.get("align")
    if isinstance(align, dict) and isinstance(align.get("data"), list):
        files = [_absolute(_fill(str(item), shorthands), folder) for item in align["data"]]
        resolved["align"] = {**align, "data": files}
    return resolved


def _resolve_sources(domain: Any, folder: Path, shorthands: dict[str, str]) -> Any:
    domain = _resolve_key(domain, "word_lists", folder, shorthands)
    if not isinstance(domain, dict) or not isinstance(domain.get("sources"), list):
        return domain
    sources = []
    for source in domain["sources"]:
        if isinstance(source, dict) and isinstance(source.get("path"), str):
            path = _fill(source["path"], shorthands)
            source = {**source, "path": path if source.get("kind") == "hf" else _absolute(path, folder)}
        sources.append(source)
    return {**domain, "sources": sources}


def _resolve_curate(curate: dict[str, Any], folder: Path, shorthands: dict[str, str]) -> dict[str, Any]:
    resolved = _resolve_key(curate, "language_model", folder, shorthands)
    for key in ("classifiers", "perplexity"):
        if isinstance(resolved.get(key), list):
            models = [_resolve_key(one, "model", folder, shorthands) for one in resolved[key]]
            resolved = {**resolved, key: models}
    files = resolved["urls"].get("host_files") if isinstance(resolved.get("urls"), dict) else None
    if isinstance(files, list):
        files = [_absolute(_fill(str(file), shorthands), folder) for file in files]
        resolved = {**resolved, "urls": {**resolved["urls"], "host_files": files}}
    near = resolved.get("near_duplicates")
    if isinstance(near, dict) and isinstance(near.get("against"), list):
        indexes = [
            _absolute(_fill(one, shorthands), folder) if isinstance(one, str) else one for one in near["against"]
        ]
        resolved = {**resolved, "near_duplicates": {**near, "against": indexes}}
    against = resolved["decontaminate"].get("against") if isinstance(resolved.get("decontaminate"), dict) else None
    if isinstance(against, list):
        sets = [_resolve_key(one, "path", folder, shorthands) for one in against]
        resolved = {**resolved, "decontaminate": {**resolved["decontaminate"], "against": sets}}
    return resolved


def _resolve_key(section: Any, key: str, folder: Path, shorthands: dict[str, str]) -> Any:
    """A section with the path that one of its keys holds made absolute; as it is where it holds none."""
    if not isinstance(section, dict) or not isinstance(section.get(key), str):
        return section
    return {**section, key: _absolute(_fill(section[key], shorthands), folder)}


def _items(value: Any):
    return value.items() if isinstance(value, dict) else ()


def _fill(path: str, shorthands: dict[str, str]) -> str:
    def replace(match: re.Match) -> str:
        name = match[1]
        if name not in shorthands:
            raise RecipeError(f"path {path!r}: {{{name}}} is not in `paths`; {nearest(name, list(shorthands))}")
        return shorthands[name]

    return re.sub(r"\{(\w+)\}", replace, path)


def _absolute(path: str, folder: Path) -> str:
    if "://" in path or path.startswith("stdlib:"):
        return path
    expanded = Path(path).expanduser()
    # normpath, not resolve: a link the user made should be shown under the name the user gave it.
    return os.path.normpath(expanded if expanded.is_absolute() else folder / expanded)
