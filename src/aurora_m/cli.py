"""The command `aurora-m`: each command is a few lines over one public function."""

import errno
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .recipe import Recipe

app = typer.Typer(
    help="One recipe file takes raw documents to a released, measured model that also speaks your languages.\n\n"
    "Start with `aurora-m run recipes/quickstart.yaml`; `aurora-m explain RECIPE` tells what a recipe would do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Change a value of the recipe, such as train.phases.CAP.tokens=2M. Repeatable.",
    ),
]
Runs = Annotated[
    Path,
    typer.Option(
        envvar="AURORA_M_RUNS",
        help="The folder that run folders are in; the run is RUNS/NAME, by the recipe's name.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors and the result.")]


@app.command()
def run(
    recipe: RecipePath,
    changes: Changes = None,
    from_stage: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Redo this stage and all that follow, changed or not.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Run this stage alone, on the results before it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and why, and change nothing.")] = False,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
) -> None:
    """Run a recipe from raw documents to release and report.

    Stages: curate, tokenize, train, align, evaluate, release. What is done and unchanged is skipped; a run that was
    stopped or killed goes on where it was when the same command is given again.
    """
    from .recipe import Recipe

    _run(Recipe.load(recipe, changes), runs, quiet, from_stage=from_stage, only=only, dry_run=dry_run)


def _run(
    recipe: "Recipe", runs: Path, quiet: bool, *, only: str | None, from_stage: str | None = None, dry_run: bool = False
) -> None:
    """Runs a recipe, or one stage of it, and tells where the report is."""
    from .pipeline import run as run_recipe
    from .training import is_main_process
    from .workspace import Progress

    folder = run_recipe(recipe, runs=runs, from_stage=from_stage, only=only, dry_run=dry_run, progress=Progress(quiet))
    if not dry_run and is_main_process():
        typer.echo(f"report: {folder / 'report' / 'index.html'}")


def _stage_command(stage: str, summary: str):
    def command(recipe: RecipePath, changes: Changes = None, runs: Runs = Path("runs"), quiet: Quiet = False) -> None:
        from .recipe import Recipe

        _run(Recipe.load(recipe, changes), runs, quiet, only=stage)

    app.command(stage, help=f"{summary}\n\nThis stage alone; those before it must be up to date.")(command)


@app.command()
def curate(
    recipe: RecipePath,
    changes: Changes = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="DOCUMENTS",
            help="Try it on the first so many documents of every source, in a run folder RUNS/NAME-sample, "
            "to see what would be dropped before hours are spent. Duplicates further on are not foreseen.",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
) -> None:
    """Clean the raw documents: language, quality, personal data, duplicates, held-out split."""
    from .recipe import Recipe

    loaded = Recipe.load(recipe, changes)
    _run(loaded if sample is None else loaded.sampled(sample), runs, quiet, only="curate")


_stage_command("tokenize", "Train or load the tokenizer and write token shards in Megatron's format.")
_stage_command("train", "Train the phases of the recipe, keeping the forgetting ledger. Resumes where it stopped.")
_stage_command(
    "align", "Tune the trained model on safety data: refusals that explain, answers to harmless look-alikes."
)
_stage_command("evaluate", "Measure forgetting on every domain, refusals and over-refusals.")
_stage_command("release", "Write the folder to publish: weights, tokenizer, cards, checksums.")


@app.command()
def report(recipe: RecipePath, changes: Changes = None, runs: Runs = Path("runs")) -> None:
    """Draw the report of a run as it stands now: one HTML page that needs no network."""
    from .pipeline import make_report
    from .recipe import Recipe
    from .workspace import AuroraError

    folder = runs.absolute() / Recipe.load(recipe, changes).name
    if not folder.exists():
        raise AuroraError(f"there is no run folder {folder} yet; `aurora-m run {recipe}` makes it")
    typer.echo(f"report: {make_report(folder)}")


@app.command()
def explain(recipe: RecipePath, changes: Changes = None, runs: Runs = Path("runs")) -> None:
    """Tell in words and tables what a recipe does: domains, phases, tokens and epochs, what is done, what would run."""
    from rich.console import Console
    from rich.table import Table

    from .pipeline import plan_stages
    from .recipe import Recipe, explain_recipe

    loaded = Recipe.load(recipe, changes)
    folder = runs.absolute() / loaded.name
    console = Console()
    console.print(explain_recipe(loaded, folder))
    table = Table("stage", "would", "because", title=f"Run folder {folder}", title_justify="left")
    for plan in plan_stages(loaded, folder):
        table.add_row(plan.stage, plan.action, plan.reason)
    console.print(table)


@app.command()
def plan(
    recipe: RecipePath,
    devices: Annotated[int, typer.Option(min=1, help="How many devices (GPUs) there would be.")],
    device: Annotated[
        str,
        typer.Option(
            help="Which: a100, a100-40gb, h100, h200, b200, mi250x (one of a module's two dies), mi300x, ...; a wrong "
            "name lists all. For one that is not listed give --memory-gb and --peak-tflops."
        ),
    ],
    changes: Changes = None,
    price: Annotated[
        float | None, typer.Option("--price-per-gpu-hour", metavar="MONEY", help="Of one device, in any currency.")
    ] = None,
    mfu: Annotated[
        float,
        typer.Option(
            help="Assumed share of the devices' peak that training reaches: hours, energy and money go with it. "
            "Measure it on one machine first; published single-node runs reach 0.39 to 0.47."
        ),
    ] = 0.4,
    network_gbit: Annotated[
        float, typer.Option(help="Network between machines, for each device, in Gbit/s and one direction.")
    ] = 200.0,
    mesh: Annotated[
        list[str] | None,
        typer.Option(metavar="PxDxT", help="Only this mesh, pipeline x data x tensor, such as 4x8x4. Repeatable."),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Sequences at once; default: the recipe's, or what training would choose."),
    ] = None,
    base_config: Annotated[
        Path | None, typer.Option(metavar="config.json", help="The base model's, where it is not fetched yet.")
    ] = None,
    memory_gb: Annotated[float | None, typer.Option(help="The device's memory, if not as in the table.")] = None,
    peak_tflops: Annotated[
        float | None, typer.Option(help="Its dense bf16 peak, without sparsity, if not as in the table.")
    ] = None,
    watts: Annotated[int | None, typer.Option(min=1, help="Its power limit, if not as in the table.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All figures in full, as JSON.")] = False,
) -> None:
    """Tell what training would take on devices that are not here: memory, traffic, hours, energy, money.

    `aurora-m plan recipes/quickstart.yaml --devices 8 --device h100 --price-per-gpu-hour 2.5`

    Runs the real training step, laid over the devices in several ways (meshes), on tensors that have sizes and no
    numbers, and ranks the meshes: those that fit in memory first, then by days, then by bytes sent. Nothing is
    fetched and nothing written. What is counted and what is assumed stands below the tables.
    """
    from rich.console import Console

    from .recipe import Recipe, planned_model
    from .training import describe_plan, known_device, parse_mesh, plan_to_json, plan_training

    loaded = Recipe.load(recipe, changes)
    found = known_device(device, memory_gigabytes=memory_gb, peak_teraflops=peak_tflops, watts=watts)
    meshes = [parse_mesh(text, devices) for text in mesh] if mesh else None
    model = planned_model(loaded, base_config)
    made = plan_training(
        loaded.train, model, found, devices, mfu=mfu, price=price, network_bytes=network_gbit * 1e9 / 8,
        meshes=meshes, micro_batch=micro_batch,
    )  # fmt: skip
    if as_json:
        typer.echo(plan_to_json(made))
    else:
        Console().print(describe_plan(made))


@app.command()
def probe(
    recipe: RecipePath,
    part: Annotated[str, typer.Option(help="How much of the phase each trial trains.")] = "5%",
    shares: Annotated[str, typer.Option(help="Shares of replay to try.")] = "0,15%,40%",
    rates: Annotated[str, typer.Option(help="Factors of the planned peak rate to try.")] = "1,0.4",
    changes: Changes = None,
    runs: Runs = Path("runs"),
    quiet: Quiet = False,
) -> None:
    """Find out by short trials what replay and rate a forgetting budget (train.guardrails) will take.

    `aurora-m probe recipes/mine.yaml --part 5% --shares 0,15%,40% --rates 1,0.4`

    Trains the first guarded phase for a small part of its tokens with each share and rate, fits how the model forgets
    and learns, and says with an interval what the whole phase would take. Trials that are done are not repeated.
    """
    from rich.console import Console

    from .pipeline import probe as run_probe
    from .recipe import Recipe
    from .training import Trials, describe_probe
    from .workspace import Progress

    trials = Trials(
        _shares("--part", part, 0.001, 1)[0],
        tuple(_shares("--shares", shares, 0, 0.95)),
        tuple(_shares("--rates", rates, 0.001, 10)),
    )
    result = run_probe(Recipe.load(recipe, changes), trials, runs=runs, progress=Progress(quiet=quiet))
    Console().print(describe_probe(result))


def _shares(option: str, text: str, least: float, most: float) -> list[float]:
    """Shares such as `0,15%,0.4`.

    Raises:
        RecipeError: one is no number from `least` to `most`.
    """
    from .workspace import RecipeError, parse_share

    try:
        values = [parse_share(one) for one in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(least <= value <= most for value in values):
        raise RecipeError(f"{option} {text}: expected numbers from {least:g} to {most:g}, such as 0,15%,0.4")
    return values


@app.command()
def launch(
    recipe: RecipePath,
    slurm: Annotated[bool, typer.Option("--slurm", help="Write a job for Slurm, and submit it.")] = False,
    torchrun: Annotated[
        bool, typer.Option("--torchrun", help="Write a script for machines at hand; on one machine, run it.")
    ] = False,
    write_only: Annotated[bool, typer.Option("--write-only", help="Write the script and start nothing.")] = False,
    changes: Changes = None,
    nodes: Annotated[int, typer.Option(help="Machines.")] = 1,
    devices_per_node: Annotated[int, typer.Option(help="Devices, and processes, of each machine.")] = 1,
    time_limit: Annotated[
        str, typer.Option("--time", help="Slurm's limit for one job, such as 2-00:00:00; a run may take many.")
    ] = "24:00:00",
    warning_minutes: Annotated[
        int, typer.Option(help="How long before the limit training stops and saves; a step and a checkpoint must fit.")
    ] = 5,
    partition: Annotated[str | None, typer.Option(help="Slurm's partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm's account.")] = None,
    cores_per_device: Annotated[
        int | None, typer.Option(help="CPU cores of each process; default: an equal share.")
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="A line of shell to run first, such as 'module load rocm'. Repeatable."),
    ] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Start a run as a job: write its script to RUNS/NAME/launch, then submit it to Slurm or run it under torchrun.

    `aurora-m launch recipes/aurora-m-15b.yaml --slurm --nodes 16 --devices-per-node 8 --account project_1`

    A Slurm job that is warned of its end (SIGUSR1), or preempted (SIGTERM), finishes its step, writes a checkpoint and
    ends with exit code 75, for which the script puts it back into the queue; a failure (any other code) stays down.
    The job goes on where it was each time it starts. Where there is no Slurm the script is written all the same.
    """
    from .recipe import Recipe
    from .training import Job, check_job, submit, write_script
    from .workspace import RecipeError

    if slurm == torchrun:
        raise RecipeError("launch: give one of --slurm and --torchrun")
    loaded, kind = Recipe.load(recipe, changes), "slurm" if slurm else "torchrun"
    arguments = tuple(word for change in changes or [] for word in ("--set", change))
    folder = runs.absolute() / loaded.name / "launch"
    job = Job(
        loaded.name, recipe.absolute(), runs.absolute(), folder, nodes, devices_per_node, arguments,
        time_limit=time_limit, warning_minutes=warning_minutes, partition=partition, account=account,
        cores_per_device=cores_per_device, setup=tuple(setup or []),
    )  # fmt: skip
    check_job(loaded.train, job)
    script = write_script(job, kind)
    typer.echo(f"script: {script}")
    if write_only:
        typer.echo("nothing was started (--write-only)")
    elif slurm:
        typer.echo(submit(script))
    elif nodes > 1:
        typer.echo(f"not started: run it on each of the {nodes} machines, with NODE_RANK and MASTER_ADDR set")
    else:
        sys.stdout.flush()
        os.execvp("bash", ["bash", str(script)])


@app.command()
def show(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/quickstart.", show_default=False)
    ],
) -> None:
    """Show where a run stands: stages, last losses, forgetting ledger."""
    from rich.console import Console

    from .report import describe_run

    Console().print(describe_run(run_folder))


@app.command()
def ledger(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/quickstart.", show_default=False)
    ],
    compare: Annotated[
        Path | None, typer.Option(metavar="RUN2", help="Another run, laid side by side with the first.")
    ] = None,
    phase: Annotated[
        str | None, typer.Option(metavar="PHASE", help="Of a run with branches: the way to the end of this phase.")
    ] = None,
    compare_phase: Annotated[
        str | None,
        typer.Option(metavar="PHASE", help="The same of RUN2; without --compare, another branch of the first run."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it too: FILE.svg, FILE.png or FILE.pdf.")
    ] = None,
) -> None:
    """Tell what was learned and what forgotten: held-out bits per byte of every domain, against the base model.

    `aurora-m ledger runs/quickstart --plot ledger.png`, also while it trains

    `aurora-m ledger runs/first --compare runs/second` says how far the second ended from the first.

    `aurora-m ledger runs/first --phase CAT-a --compare-phase CAT-b` does so for two branches of one run.
    """
    from rich.console import Console

    from .report import describe_ledger, draw_ledger

    Console().print(describe_ledger(run_folder, compare, phase, compare_phase))
    if plot is not None:
        draw_ledger(run_folder, compare, plot, phase, compare_phase)
        typer.echo(f"plot: {plot}")


@app.command()
def merge(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder whose training has finished.", show_default=False)
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARE or DOMAIN=SHARE",
            help="How much worse known domains may get, such as 1% (each of them) or en=1% (repeatable). "
            "Left out: the recipe's train.merge.budget, else its train.guardrails.",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="An ancestor of the model to merge with, if not the ledger's base."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw learning against forgetting: FILE.svg, .png or .pdf.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Move the trained model a little back towards its base, if that wins back more than it costs.

    Scores models between the two on the ledger's held-out text and keeps the one that learned most inside the budget.
    `aurora-m run RECIPE` then goes on with it. With `merge: auto` in the recipe's `train`, training ends with this.

    `aurora-m merge runs/quickstart --budget 1% --plot merge.png`
    """
    from rich.console import Console

    from .pipeline import merge_run
    from .report import check_plot, describe_merge, draw_merge
    from .training import parse_budgets
    from .workspace import Progress

    if plot is not None:
        check_plot(plot)
    merge_run(run_folder, base=base, budget=parse_budgets(budget), progress=Progress(quiet))
    Console().print(describe_merge(run_folder))
    if plot is not None:
        draw_merge(run_folder, plot)
        typer.echo(f"plot: {plot}")


@app.command()
def inspect(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/quickstart.", show_default=False)
    ],
    domain: Annotated[str | None, typer.Option(help="Documents of this domain only.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="Documents dropped for a reason that holds this text, such as stop_word.")
    ] = None,
    kept: Annotated[bool, typer.Option("--kept", help="Documents that were kept, instead of dropped ones.")] = False,
    contains: Annotated[str | None, typer.Option(help="Documents whose text holds this.")] = None,
    documents: Annotated[int, typer.Option("--documents", "-n", min=1, help="How many of each domain.")] = 5,
    characters: Annotated[int, typer.Option(min=1, help="How much of each text.")] = 600,
) -> None:
    """Look at what curation dropped and kept: counts by reason, or the documents themselves with their scores.

    `aurora-m inspect runs/quickstart` counts; `... --reason stop_word --domain fi` shows texts.
    """
    from rich.console import Console

    from .report import Wanted, inspect_curation

    Console().print(inspect_curation(run_folder, Wanted(domain, reason, kept, contains, documents, characters)))


@app.command()
def fertility(
    tokenizer: Annotated[
        str,
        typer.Argument(
            help="A run folder, or a tokenizer: a folder, a tokenizer.json, a Hugging Face id.", show_default=False
        ),
    ],
    against: Annotated[
        list[str] | None, typer.Option(metavar="TOKENIZER", help="One to lay beside it, in the same forms. Repeatable.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Documents: .jsonl(.gz, .zst), .parquet, a folder. Default: held-out ones."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many documents of each path.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The counts, as JSON.")] = False,
) -> None:
    """Tell how many tokens a tokenizer needs for a byte, a character and a word of every language.

    `aurora-m fertility runs/quickstart --against path/to/another` measures on the run's held-out documents, and beside
    its base model's tokenizer.

    `aurora-m fertility path/to/tokenizer --against another --text fi.jsonl.zst --text hi.jsonl.zst`
    """
    import json

    from rich.console import Console

    from .tokens import describe_fertility, measure_fertility
    from .workspace import Progress

    measured = measure_fertility(tokenizer, against or [], text or [], limit=limit, progress=Progress(quiet=True))
    if as_json:
        typer.echo(json.dumps(measured, ensure_ascii=False, indent=2))
    else:
        Console().print(describe_fertility(measured))


@app.command("train-classifier")
def train_classifier(
    positive: Annotated[
        list[str],
        typer.Option(metavar="PATH", help="Documents to look for: .jsonl(.gz, .zst), .parquet, a folder. Repeatable."),
    ],
    negative: Annotated[list[str], typer.Option(metavar="PATH", help="Documents to tell them from. Repeatable.")],
    out: Annotated[Path, typer.Option(metavar="MODEL.bin", help="The model; its measurements go beside it, .json.")],
    epochs: Annotated[int, typer.Option(min=1, help="How often every document is seen.")] = 5,
    dim: Annotated[int, typer.Option(min=1, help="Numbers per word; more make file and training larger.")] = 16,
    word_ngrams: Annotated[int, typer.Option(min=1, max=8, help="Words in the longest n-grams; 1: words alone.")] = 2,
    characters: Annotated[
        str | None,
        typer.Option(
            metavar="SHORTEST,LONGEST", help="N-grams of characters too, such as 1,3: where words are not set off."
        ),
    ] = None,
    buckets: Annotated[int, typer.Option(min=1, help="Rows that n-grams share; the file has 4 x DIM bytes each.")] = 2
    ** 20,
    min_count: Annotated[int, typer.Option(min=1, help="Rarer words have no row, and are not in the file.")] = 5,
    lr: Annotated[float, typer.Option(help="Learning rate at the beginning; it falls to 0.")] = 0.5,
    heldout: Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of the documents to measure with.")] = 0.1,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many documents of each path.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Above 1 it is faster, and no two trainings are equal.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Train a text classifier for `curate.classifiers`: documents like good ones, or toxic ones, told from others.

    `aurora-m train-classifier --positive good.jsonl.zst --negative runs/first/curated/web --out good.bin`

    Prints what it makes of documents it was not trained on: of those that score above a limit, how many are positive
    (precision); of the positive ones, how many are above (recall). Choose the limit there, then in the recipe:

    `curate: {classifiers: [{name: good, model: good.bin, min: 0.3}]}` drops documents less than 0.3 likely to be good;
    `{name: toxic, model: toxic.bin, max: 0.8}` drops what is more than 0.8 likely to be toxic.

    Make both heaps of the same language and kind of page, or the classifier learns to tell these apart. The file is
    fastText's own format, whole texts are one example each, and words of the texts stand in it.
    """
    from .corpus import FastTextSettings, describe_classifier
    from .corpus import train_classifier as train_on
    from .workspace import Progress, RecipeError

    shortest, _, longest = (characters or "2,0").partition(",")
    if not (shortest.isdigit() and longest.isdigit()):
        raise RecipeError(f"--characters {characters!r}: expected two numbers, such as 1,3")
    try:
        settings = FastTextSettings(
            epochs=epochs, dim=dim, word_ngrams=word_ngrams, shortest=int(shortest), longest=int(longest),
            buckets=buckets, min_count=min_count, lr=lr, seed=seed, threads=threads,
        )  # fmt: skip
    except ValueError as error:
        problem = error.errors()[0]  # pyright: ignore[reportAttributeAccessIssue]
        raise RecipeError(f"train-classifier: {' '.join(map(str, problem['loc']))}: {problem['msg']}") from None
    result = train_on(positive, negative, out, settings, heldout_share=heldout, limit=limit, progress=Progress(quiet))
    typer.echo(describe_classifier(result))
    typer.echo(f"model: {out}")


@app.command("learn-stop-words")
def learn_stop_words(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Documents of one language: .jsonl(.gz, .zst), .parquet, a folder, RUN/curated/DOMAIN.",
            show_default=False,
        ),
    ],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many words.")] = 120,
    lang: Annotated[str | None, typer.Option(help="Compare with the list of this language.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Write them here instead of showing them.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only so many documents of each path.")] = None,
) -> None:
    """Learn a language's stop words: the words that stand in the most documents of every source.

    `aurora-m learn-stop-words data/sw.jsonl.zst --out sw-words.yaml`

    Look through the list: with documents of one kind, words of their subject are in it. It goes into the language's
    file (corpus/languages/CODE.yaml), or into the recipe: `domains: {web: {word_lists: sw-words.yaml}}`.
    """
    from .corpus import learn_stop_words as learn
    from .workspace import Progress, write_text

    learned = learn(paths, count, limit=limit, progress=Progress(quiet=out is None))
    if out is not None:
        write_text(out, learned.to_yaml())
    typer.echo(f"words: {out}" if out else learned.to_yaml(), nl=out is not None)
    typer.echo(f"# they are {learned.coverage:.0%} of the words of the documents")
    if lang is not None:
        same = learned.compare(lang)
        typer.echo(
            f"# {same['both']} are in the list of {lang}, too: {same['of_learned']:.0%} of these, "
            f"{same['of_shipped']:.0%} of those"
        )


class _StoppedByScheduler(BaseException):
    """A scheduler's signal where no training is at work, which would answer it itself."""


def _listen_to_scheduler() -> None:
    """SIGTERM and SIGUSR1 end the command in order, and with the exit code that puts a job back into the queue."""
    from .training import SCHEDULER_SIGNALS

    own = os.getpid()

    def stop(number: int, _: object) -> None:
        if os.getpid() != own:  # a forked child is ended by signals as ever
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise _StoppedByScheduler(signal.Signals(number).name)

    for number in SCHEDULER_SIGNALS:
        signal.signal(number, stop)


def _ignore_scheduler() -> None:
    """From here on the command is ending."""
    from .training import SCHEDULER_SIGNALS

    for number in SCHEDULER_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Entry point: runs the command and turns a user's mistakes into one message and an exit code (1 or 2).

    Of the processes of a job the main one alone says by its exit code that a scheduler stopped it (75): the others are
    sent SIGTERM as well when one of them has failed, and must not turn a failure into a stop.
    """
    # The reader of a pipe may leave early (`aurora-m show RUN | head`): that is no error of ours.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    _listen_to_scheduler()
    try:
        app()
    except SystemExit:
        _ignore_scheduler()
        raise
    except KeyboardInterrupt:
        _say("stopped; nothing is half-written, the same command goes on")
        sys.exit(130)
    except _StoppedByScheduler as stopped:
        _ignore_scheduler()
        from .training import EXIT_STOPPED_BY_SCHEDULER, is_main_process

        if not is_main_process():
            sys.exit(0)
        _say(f"stopped by {stopped}; nothing is half-written, the same command goes on", 0)
        sys.exit(EXIT_STOPPED_BY_SCHEDULER)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _say(f"the disk is full ({error.filename or Path.cwd()}); free some space and give the same command again")
        sys.exit(1)
    except Exception as error:
        _ignore_scheduler()
        from .training import EXIT_STOPPED_BY_SCHEDULER, is_main_process
        from .workspace import AuroraError

        if not isinstance(error, AuroraError):
            raise
        stopped = error.exit_code in (0, EXIT_STOPPED_BY_SCHEDULER)
        if not is_main_process():
            # What ends one process of a torchrun job ends all, and the main one says so; torchrun stops it as soon as
            # another has failed, so it speaks first.
            time.sleep(2)
            sys.exit(0 if stopped else error.exit_code)
        _say(str(error), 0 if stopped else error.exit_code)
        if stopped:
            _say(f"resume: aurora-m {shlex.join(sys.argv[1:])}", 0)
        sys.exit(error.exit_code)


def _say(message: str, exit_code: int = 1) -> None:
    typer.echo(message if exit_code == 0 else f"error: {message}", err=exit_code != 0)
