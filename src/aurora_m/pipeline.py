"""The stages in order: what is done is skipped, what changed is redone together with all that follows."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from . import corpus, evaluation, model, release, report, safety, tokens, training
from .recipe import Recipe
from .workspace import (
    AuroraError,
    Manifest,
    Progress,
    RecipeError,
    atomic_folder,
    fingerprint,
    fingerprint_file,
    fingerprint_folder,
    forget_manifest,
    load_manifest,
    lock_run,
    read_json,
    record_stage,
    recover_folder,
    stage_fingerprint,
    write_json,
    write_text,
)

STAGES = ("curate", "tokenize", "train", "align", "evaluate", "release")
FOLDERS = {
    "curate": "curated",
    "tokenize": "tokens",
    "train": "train",
    "align": "align",
    "evaluate": "evaluation",
    "release": "release",
}
# train and align resume inside their folder; the others write a new folder that takes the old one's place at the end.
_LASTING = ("train", "align")
# What all processes of a torchrun job do together; the rest is done by one.
_SHARED = ("train",)
# Settings of where and how the work is done; the result does not depend on them.
_WHERE = frozenset(
    ["threads", "memory", "engine", "ray_address", "partition_bytes", "keep_scored", "shuffle_memory_bytes", "parallel"]
)


@dataclass(frozen=True)
class StagePlan:
    """What a run would do with one stage, and why."""

    stage: str
    action: Literal["skip", "run", "redo", "blocked"]
    reason: str


@dataclass(frozen=True)
class _Stage:
    """One stage of one run: its part of the recipe, what it depends on, and the work."""

    name: str
    config: dict[str, Any]
    inputs: Callable[[], dict[str, str]]
    work: Callable[[Path, Progress], dict[str, Any]]
    foresee: Callable[[], list[str]] = list
    """What is to be said of the work beforehand, in lines."""


def run(
    recipe: Recipe,
    *,
    runs: str | Path = "runs",
    from_stage: str | None = None,
    only: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Runs a recipe in `runs/<name>` and returns that folder; the report is `report/index.html` in it.

    `from_stage` redoes that stage and all that follow even where nothing changed; `only` runs a single stage on the
    results of those before it; `dry_run` prints what would happen and changes nothing.

    Raises:
        RecipeError: unknown stage, or `only` without the results it needs.
        AuroraError: bad data, a locked run folder, or whatever a stage cannot go on with.
    """
    progress = progress or Progress()
    for given in (from_stage, only):
        if given is not None and given not in STAGES:
            raise RecipeError(f"unknown stage {given!r}; expected one of {', '.join(STAGES)}")
    folder = Path(runs).absolute() / recipe.name
    if only in (None, "train"):
        training.check_trackers(recipe.train.telemetry)
    if dry_run:
        for plan in plan_stages(recipe, folder, from_stage=from_stage, only=only):
            progress.say(f"{plan.stage:<9} {plan.action:<8} {plan.reason}")
        return folder
    if training.world_size() > 1:
        with training.open_crew() as crew:
            if training.is_main_process():
                _run_stages(recipe, folder, from_stage, only, progress, crew.call)
            else:
                stages = {stage.name: stage for stage in _stages(recipe, folder)}
                crew.follow(lambda name: stages[name].work(folder / FOLDERS[name], Progress(quiet=True)))
    else:
        _run_stages(recipe, folder, from_stage, only, progress, lambda stage: None)
    return folder


def _run_stages(
    recipe: Recipe,
    folder: Path,
    from_stage: str | None,
    only: str | None,
    progress: Progress,
    call: Callable[[str], None],
) -> None:
    """The stages in order, in one process; `call` brings in the others of a torchrun job."""
    with lock_run(folder):
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        write_text(folder / "recipe.yaml", recipe.to_yaml())
        forced = False
        for stage in _stages(recipe, folder, keeps_tokenizer=from_stage not in ("curate", "tokenize")):
            forced = forced or stage.name == from_stage
            if only is None or stage.name == only:
                _run_stage(stage, folder, forced, progress, call)
            else:
                _refuse_stale(stage, folder, only)
            if stage.name == only:
                break
        make_report(folder)


def plan_stages(
    recipe: Recipe, folder: Path, *, from_stage: str | None = None, only: str | None = None
) -> list[StagePlan]:
    """What `run` would do, stage by stage, without doing it."""
    plans: list[StagePlan] = []
    redo_reason = ""
    for stage in _stages(recipe, folder):
        if only not in (None, stage.name):
            continue
        if redo_reason:
            plans.append(StagePlan(stage.name, "run", "; ".join([redo_reason, *stage.foresee()])))
            continue
        try:
            plan = _plan(stage, folder, forced=stage.name == from_stage)
            if plan.action in ("run", "redo") and stage.name != from_stage:
                plan = replace(plan, reason="; ".join([plan.reason, *stage.foresee()]))
        except AuroraError as error:
            plan = StagePlan(stage.name, "blocked", str(error))
        plans.append(plan)
        if plan.action != "skip":
            redo_reason = f"follows {stage.name}"
    return plans


def make_report(folder: Path) -> Path:
    """Draws the report of a run folder and returns the page's path."""
    with atomic_folder(folder / "report") as out:
        report.write_report(folder, out)
    return folder / "report" / "index.html"


def merge_run(
    folder: Path, *, base: Path | None = None, budget: dict[str, float] | float | None = None, progress: Progress
) -> None:
    """Merges the model of a run whose training is finished; the stages after it are redone when the run goes on.

    Args:
        base: an ancestor to merge with other than the base the ledger compares with.
        budget: instead of the recipe's.

    Raises:
        AuroraError: `folder` is no run whose training has finished, or is in use; and as `training.merge_trained`.
    """
    if not (folder / "recipe.yaml").exists():
        raise AuroraError(f"{folder} is no run folder (it has no recipe.yaml); give what `aurora-m run RECIPE` made")
    with lock_run(folder):
        _finished(folder, "train")
        recipe = Recipe.load(folder / "recipe.yaml")
        config, tokens = recipe.train, folder / FOLDERS["tokenize"]
        if budget is not None:
            merging = (config.merge or training.MergeConfig()).model_copy(update={"budget": budget})
            config = config.model_copy(update={"merge": merging})
        training.merge_trained(
            config, recipe.base, tokens, folder / FOLDERS["train"], progress=progress, base_folder=base
        )
        make_report(folder)


def _plan(stage: _Stage, folder: Path, forced: bool) -> StagePlan:
    manifest = load_manifest(folder, stage.name)
    expected = stage_fingerprint(stage.name, stage.config, stage.inputs())
    if forced:
        return StagePlan(stage.name, "redo", "asked for")
    if manifest is None:
        started = stage.name in _LASTING and (folder / FOLDERS[stage.name]).exists()
        return StagePlan(stage.name, "run", "goes on where it stopped" if started else "not done yet")
    if not (folder / FOLDERS[stage.name]).exists():
        return StagePlan(stage.name, "run", f"its folder {FOLDERS[stage.name]}/ is gone")
    if manifest.fingerprint != expected:
        return StagePlan(stage.name, "redo", _difference(manifest, stage))
    return StagePlan(stage.name, "skip", f"unchanged since {manifest.finished}")


def _difference(manifest: Manifest, stage: _Stage) -> str:
    """Which settings or inputs changed, by name."""
    inputs = stage.inputs()
    config = [key for key in {**manifest.config, **stage.config} if manifest.config.get(key) != stage.config.get(key)]
    files = [key for key in {**manifest.inputs, **inputs} if manifest.inputs.get(key) != inputs.get(key)]
    changed = [f"setting {key}" for key in config] + [f"input {key}" for key in files]
    return "changed: " + (", ".join(changed[:4]) + (" ..." if len(changed) > 4 else ""))


def _run_stage(stage: _Stage, folder: Path, forced: bool, progress: Progress, call: Callable[[str], None]) -> None:
    out = folder / FOLDERS[stage.name]
    recover_folder(out)
    plan = _plan(stage, folder, forced)
    if plan.action == "skip":
        progress.say(f"{stage.name}: {plan.reason}, skipped")
        return
    progress.say(f"{stage.name}: {plan.reason}")
    if forced and stage.name in _LASTING:
        _set_aside(out)
    with record_stage(folder, stage.name, stage.config, stage.inputs()) as manifest:
        if stage.name in _LASTING:
            forget_manifest(folder, stage.name)
            out.mkdir(exist_ok=True)
            if stage.name in _SHARED:
                call(stage.name)
            manifest.counts = stage.work(out, progress)
        else:
            with atomic_folder(out) as temporary:
                manifest.counts = stage.work(temporary, progress)
                # Only now: a redo that fails leaves the old folder with its own manifest.
                forget_manifest(folder, stage.name)


def _refuse_stale(stage: _Stage, folder: Path, only: str) -> None:
    plan = _plan(stage, folder, forced=False)
    if plan.action != "skip":
        raise AuroraError(
            f"{only} builds on {stage.name}, which is not up to date ({plan.reason}); "
            f"run `aurora-m {stage.name} RECIPE` first, or `aurora-m run RECIPE` for everything"
        )


def _set_aside(out: Path) -> None:
    """Keeps the checkpoints of a training that is redone on request: they may have cost weeks."""
    if out.exists():
        kept = out.with_name(f"{out.name}-until-{time.strftime('%Y%m%dT%H%M%S')}")
        out.rename(kept)


# The stages of this house, each: its section of the recipe, what it reads, what it does.


def _stages(recipe: Recipe, folder: Path, *, keeps_tokenizer: bool = True) -> list[_Stage]:
    """The six stages bound to a recipe and a run folder.

    `keeps_tokenizer`: other documents train no other tokenizer while a model is under way with it.
    """
    path = {name: folder / FOLDERS[name] for name in STAGES}
    dump = recipe.model_dump(mode="json")

    def follows(*stages: str) -> dict[str, str]:
        return {name: _finished(folder, name) for name in stages}

    def curate_inputs() -> dict[str, str]:
        sources = {
            f"{name} {number}: {Path(source.path).name}": corpus.fingerprint_source(source)
            for name, domain in recipe.domains.items()
            for number, source in enumerate(domain.sources, 1)
        }
        against = recipe.curate.decontaminate.against
        sets = {f"evaluation set {one.name}": corpus.fingerprint_evaluation_set(one) for one in against}
        model = recipe.curate.language_model
        for name, domain in recipe.domains.items():
            if domain.word_lists:
                sources[f"{name} word lists"] = _fingerprint_file(Path(domain.word_lists))
        for one in recipe.curate.classifiers:
            sources[f"classifier {one.name}"] = _fingerprint_file(Path(one.model))
        for one in recipe.curate.perplexity:
            sources[f"perplexity {one.lang}"] = _fingerprint_file(Path(one.model))
        earlier = recipe.curate.near_duplicates.against
        sets |= {f"earlier index {n}": corpus.fingerprint_index(path) for n, path in enumerate(earlier, 1)}
        urls = recipe.curate.urls
        sets |= {f"hosts {number}": one for number, one in enumerate(corpus.fingerprint_hosts(urls), 1)}
        return sources | sets | ({"language model": _fingerprint_file(Path(model))} if model else {})

    def base_inputs() -> dict[str, str]:
        return {"base": _fingerprint_base(recipe)} if recipe.base.path else {}

    def align_inputs() -> dict[str, str]:
        return follows("train") | _merged(path["train"]) | _prompt_inputs(recipe.align.data)

    def curate(out: Path, progress: Progress) -> dict:
        # Finished partitions outlive a kill, and the stage: other thresholds are laid on them.
        partitions = folder / "curating"
        return corpus.curate(
            recipe.curate, recipe.domains, out, seed=recipe.seed, progress=progress, partitions=partitions
        )

    def tokenize(out: Path, progress: Progress) -> dict:
        return tokens.tokenize(
            recipe.tokenizer,
            path["curate"],
            out,
            base_folder=_base_folder(recipe),
            kept_tokenizer=_tokenizer_in_use(recipe, folder) if keeps_tokenizer else None,
            seed=recipe.seed,
            progress=progress,
        )

    def train(out: Path, progress: Progress) -> dict:
        return training.train(
            recipe.train,
            recipe.base,
            path["tokenize"],
            out,
            seed=recipe.seed,
            base_folder=_base_folder(recipe),
            progress=progress,
        )

    def align(out: Path, progress: Progress) -> dict:
        return safety.align(
            recipe.align,
            path["train"],
            path["tokenize"],
            out,
            seed=recipe.seed,
            progress=progress,
            precision=recipe.train.precision,
        )

    def evaluate(out: Path, progress: Progress) -> dict:
        return evaluate_run(recipe, folder, out, progress)

    def publish(out: Path, progress: Progress) -> dict:
        return release.release(recipe.release, folder, out, dump, progress)

    seed = {"seed": recipe.seed}
    domains = {
        "domains": {
            name: {
                **domain,
                "sources": _without_folders(domain["sources"]),
                "word_lists": domain["word_lists"] and Path(domain["word_lists"]).name,
            }
            for name, domain in dump["domains"].items()
        }
    }
    curate_config, tokenizer_config, train_config = (
        {key: value for key, value in dump[section].items() if key not in _WHERE}
        for section in ("curate", "tokenizer", "train")
    )
    # Of files the content counts, which is among the inputs, not where they lie.
    near = curate_config["near_duplicates"]
    curate_config["near_duplicates"] = {key: value for key, value in near.items() if key != "against"}
    sets = curate_config["decontaminate"]
    curate_config["urls"] = {key: value for key, value in curate_config["urls"].items() if key != "host_files"}
    curate_config["decontaminate"] = {**sets, "against": _without_folders(sets["against"])}
    for key in ("classifiers", "perplexity"):
        curate_config[key] = [{**one, "model": Path(one["model"]).name} for one in curate_config[key]]
    # What a base is said to know is for the report and the cards: naming it later trains nothing anew.
    base_config = {key: value for key, value in dump["base"].items() if key != "knows"}
    return [
        _Stage("curate", {**curate_config, **domains, **seed}, curate_inputs, curate),
        _Stage("tokenize", {**tokenizer_config, **seed}, lambda: follows("curate") | base_inputs(), tokenize),
        _Stage(
            "train",
            {**train_config, "base": base_config, **seed},
            lambda: follows("tokenize") | base_inputs(),
            train,
            lambda: training.foresee(recipe.train, recipe.seed, path["tokenize"], path["train"]),
        ),
        _Stage("align", {**dump["align"], **seed}, align_inputs, align),
        _Stage("evaluate", dump["evaluate"], lambda: follows("align") | _prompt_inputs(recipe.align.data), evaluate),
        _Stage(
            "release",
            {**dump["release"], "name": recipe.name, "description": recipe.description, "knows": recipe.base.knows},
            lambda: follows("evaluate"),
            publish,
        ),
    ]


def evaluate_run(recipe: Recipe, folder: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """Scores base, trained and aligned model on every domain and on the safety prompts; writes `evaluation.json`."""
    started = time.monotonic()
    models = final_models(folder)
    result = evaluation.measure_forgetting(models, folder / FOLDERS["tokenize"], recipe.evaluate, progress)
    languages = sorted({domain.lang for domain in recipe.domains.values() if domain.lang})
    before_after = {"before": models["trained"], "after": models["aligned"]}
    result["safety"] = safety.measure_safety(
        before_after, languages, recipe.evaluate, out / "answers.jsonl", progress, data=recipe.align.data
    )
    result["seconds"] = round(time.monotonic() - started, 3)
    write_json(out / "evaluation.json", result)
    return result


def final_models(folder: Path) -> dict[str, Path]:
    """The folders of the models a finished run compares: `base`, `trained` and `aligned`."""
    train, align = folder / FOLDERS["train"], folder / FOLDERS["align"]
    trained = read_json(train / "train.json")
    aligned = read_json(align / "align.json")
    return {
        "base": train / trained["base_model"],
        "trained": train / trained["final_model"],
        "aligned": align / aligned["final_model"],
    }


def _tokenizer_in_use(recipe: Recipe, folder: Path) -> Path | None:
    """The tokenizer that the tokenize stage made last, where a training is under way with it and its settings stay."""
    manifest = load_manifest(folder, "tokenize")
    settings = recipe.tokenizer.model_dump(mode="json", include={"train", "special"})
    same = manifest is not None and {key: manifest.config.get(key) for key in settings} == settings
    tokenizer = folder / FOLDERS["tokenize"] / "tokenizer"
    places = folder / FOLDERS["tokenize"], folder / FOLDERS["train"]
    under_way = training.is_under_way(recipe.train, recipe.seed, *places)
    return tokenizer if same and under_way and tokenizer.is_dir() else None


def _without_folders(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sources, or evaluation sets, by the names of their files: their content counts, not where it lies."""
    return [{**one, "path": Path(one["path"]).name} for one in files]


def _finished(folder: Path, stage: str) -> str:
    manifest = load_manifest(folder, stage)
    if manifest is None:
        raise AuroraError(f"the stage {stage} has not finished in {folder}; run `aurora-m {stage} RECIPE` first")
    return manifest.fingerprint


def _merged(train: Path) -> dict[str, str]:
    """The model that `aurora-m merge` put in the place of the trained one, if it did."""
    facts = read_json(train / "train.json") if (train / "train.json").exists() else {}
    merge = facts.get("merge")
    return {"merged model": merge["fingerprint"]} if merge and merge["of"] != facts["final_model"] else {}


def _prompt_inputs(data: list[str]) -> dict[str, str]:
    """The prompts shipped with the package and the user's own, by content: where they lie changes no result."""
    for path in data:
        if not Path(path).is_file():
            raise AuroraError(f"align.data: {path} does not exist or is no file")
    files = [*safety.shipped_prompt_files(), *map(Path, data)]
    return {f"prompts {number}: {path.name}": fingerprint_file(path) for number, path in enumerate(files, 1)}


def _fingerprint_file(path: Path) -> str:
    # The stage says what is wrong with a file that is not there.
    return fingerprint_file(path) if path.is_file() else "missing"


def _fingerprint_base(recipe: Recipe) -> str:
    path = Path(recipe.base.path or "")
    if path.is_dir():
        return fingerprint_folder(path)
    return fingerprint([recipe.base.path, recipe.base.revision])


def probe(recipe: Recipe, trials: training.Trials, *, runs: str | Path = "runs", progress: Progress) -> dict[str, Any]:
    """Runs the short trials of `aurora-m probe` in the run's folder `probe/`, and returns what they say.

    Corpora and tokens are made first where they are missing.

    Raises:
        RecipeError: no budget, or the base's own phase has not been trained yet.
        AuroraError: as `run`.
    """
    folder = Path(runs).absolute() / recipe.name
    base_folder = _base_folder(recipe)
    if base_folder is None:
        base_folder = folder / FOLDERS["train"] / "base" / "model"
        if not base_folder.exists():
            raise RecipeError(
                "probe continues a base, and this recipe trains its own, which is not there yet: run "
                "`aurora-m train` up to the end of phase base first, or give base.path"
            )
    for stage in ("curate", "tokenize"):
        run(recipe, runs=runs, only=stage, progress=progress)
    with lock_run(folder):
        return training.probe(
            recipe.train,
            recipe.base,
            folder / FOLDERS["tokenize"],
            folder / "probe",
            seed=recipe.seed,
            base_folder=base_folder,
            trials=trials,
            progress=progress,
        )


def _base_folder(recipe: Recipe) -> Path | None:
    return model.fetch_base(recipe.base.path, recipe.base.revision) if recipe.base.path else None
