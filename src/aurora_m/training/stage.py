"""The train stage: checks that recipe, tokens and model fit, finds where the run stands, and runs its phases."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from aurora_m.model import (
    BaseConfig,
    Decoder,
    ModelConfig,
    add_adapters,
    count_parameters,
    init_adapters,
    init_weights,
    load_model,
    load_weights,
    read_config,
)
from aurora_m.tokens import BASE_FOLDER, ROWS_FILE, LastingDocuments, TrainBatches, check_shares
from aurora_m.workspace import DataError, Progress, RecipeError, read_json, write_json

from .activation_checkpointing import checkpoint_activations
from .chain import Chain, chain_fingerprints, fingerprint_large, mark_phase, read_mark
from .checkpoint import checkpoint_folder
from .config import PhaseConfig, TrainConfig
from .course import Course
from .device import pick_device, resolve_precision
from .documents import fingerprint_documents, forget_documents, keep_documents, trained_on
from .edits import Edit, begin_mark, describe_edits, foresee_edits, is_finished, newest_record, settle_edits
from .energy import add_joules, describe_energy, open_meter
from .float8 import check_float8, multiply_in_float8
from .guardian import Guardian
from .last_rate import read_last_rate
from .ledger import heldout_domains, ledger_rows, read_base_bits, score_heldout, write_base_bits, write_ledger
from .lineage import planned_tokens
from .loss_weights import ignored_tokens
from .merge import merge_after_training
from .merge_budget import check_merge
from .mixtures import epoch_tokens, mixture_words, resolve_mixture
from .optimizer import build_optimizer
from .parallel import check_model, check_phase, parallelize
from .pipelining import Pipeline
from .ranks import Ranks, open_ranks
from .schedule import build_segments
from .state import TrainingState
from .steering import check_guarded, open_steering, refuse_given_up, write_decisions
from .telemetry import MetricsFile
from .trackers import Trackers, check_trackers
from .trainer import Loop, export_model, run_phase
from .vocabulary import UNTOUCHED, extends_base, refuse_adapters, start_extended

_MANY_EPOCHS = 4  # beyond this, repeated text teaches little (Muennighoff et al. 2023)


def train(
    config: TrainConfig,
    base: BaseConfig,
    tokens: Path,
    out: Path,
    *,
    seed: int,
    base_folder: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Takes a model through all phases, going on where an earlier call was stopped, and returns `train.json`.

    Args:
        tokens: the folder the tokenize stage wrote.
        out: lasts over calls; phases are kept whose settings, and whose predecessors' settings, are unchanged.
        base_folder: the base model's files, or None where `base` is an architecture.

    Raises:
        RecipeError: phases, tokens and model do not fit together; nothing was started.
        DataError: token shards or the base model are damaged.
        StoppedByUser: Ctrl-C, SIGTERM or SIGUSR1, after writing a checkpoint.
        AuroraError: the loss is not finite, or the disk is full; under torchrun, another process ended.
    """
    device = pick_device()
    with open_ranks(config.parallel, device) as ranks:
        progress = progress if ranks.is_main else Progress(quiet=True)
        result = _train(config, base, tokens, out, seed, base_folder, progress, device, ranks)
        return merge_after_training(config, base, tokens, out, result, ranks, progress)


def _train(
    config: TrainConfig,
    base: BaseConfig,
    tokens: Path,
    out: Path,
    seed: int,
    base_folder: Path | None,
    progress: Progress,
    device: torch.device,
    ranks: Ranks,
) -> dict[str, Any]:
    facts = read_json(tokens / "tokens.json")
    config = resolve_mixtures(config, epoch_tokens(facts), progress)
    check_phases(config, facts)
    base_rate = read_last_rate(base_folder) if base_folder and config.phases[0].lr.needs_last else None
    build_segments(config.phases, base_rate)  # says what is wrong with them
    check_merge(config, base, tokens)
    check_trackers(config.telemetry)
    warn_of_epochs(config, facts, progress)

    # ---- model, optimizer, data
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(seed)
    dtype = resolve_precision(config.precision, device)
    vocab_size = facts["tokenizer"]["vocab_size"]

    # ---- what a changed recipe, or changed documents, mean for what is there
    start = run_start(config, base, base_folder, tokens, seed)
    if base_rate is not None:
        start["base_rate"] = base_rate

    def settled() -> dict[str, str]:
        with ranks.agreed():
            own = settle(config, start, tokens, out, facts, progress) if ranks.is_main else {}
        return ranks.from_main(own)

    shards = None
    start_folder, untouched_bpb = base_folder, None
    if base_folder is not None and extends_base(facts, base_folder):
        own_size = facts["tokenizer"]["extends"]["vocab_size"]
        build_model(config, base, base_folder, own_size, seed, empty=True)  # refuses before anything is moved

        def make_untouched() -> Decoder | Pipeline:
            model = build_model(config, base, base_folder, own_size, seed, empty=not ranks.alone)
            if device.type == "cuda":
                model.attention_kernel = choose_attention(model.config, config, device, dtype, progress)
            return place_model(model, config, device, ranks, base_folder, dtype, seed)

        refuse_adapters(config)
        shards = settled()
        mark = chain_fingerprints(start, config.phases)[0]
        start_folder, untouched_bpb = start_extended(
            config, base_folder, tokens, facts, out, mark, seed, ranks, make_untouched
        )
    whole = build_model(config, base, start_folder, vocab_size, seed, empty=not ranks.alone)
    parameters = count_parameters(whole)
    if device.type == "cuda":
        whole.attention_kernel = choose_attention(whole.config, config, device, dtype, progress)
    if config.lora:
        add_adapters(whole, config.lora, seed, dtype)
    model = place_model(whole, config, device, ranks, start_folder, dtype, seed)
    if shards is None:
        shards = settled()

    # ---- where the run stands
    batches = open_batches(config, tokens, out, facts, seed)
    guardian = Guardian(config.guardian, device)
    state = TrainingState(model, build_optimizer(model, config.optimizer), batches, guardian=guardian, ranks=ranks)

    if config.telemetry.energy:
        state.meter = open_meter(device)
    chain = chain_fingerprints(start, config.phases)
    reference = "base" if base_folder is None and config.phases[0].name == "base" else "initial"
    export_missing_models(state, out, chain, reference, tokens / "tokenizer", facts["tokenizer"]["eod_id"])
    course = Course(config, chain, out, state, batches, progress, base_rate)
    course.check_end()
    phase = course.next_phase()
    metrics = MetricsFile(out / "metrics.jsonl", writes=ranks.is_main)
    removed = metrics.cut_phases(course.last_steps, others=False)
    trackers = open_trackers(config, out, chain, progress) if ranks.is_main else None
    if trackers is not None:
        trackers.start(course.rows(state.ledger), removed)

    # ---- the ledger
    domains = heldout_domains(out / "heldout")
    # The same over the whole run: with another length it measures another thing.
    heldout_length = config.phases[0].sequence_length

    reference_step = config.phases[0].steps if reference == "base" else 0
    base_bits = read_base_bits(out / "base_bits.npz")

    def measure(state: TrainingState) -> None:
        """Scores all held-out sets and writes the ledger."""
        nonlocal base_bits
        scores = score_heldout(
            state.model,
            out / "heldout",
            domains,
            heldout_length,
            config.ledger.heldout_tokens,
            precision=config.precision,
            ranks=ranks,
        )
        if state.step == reference_step and untouched_bpb is None:
            base_bits = {domain: score.bits for domain, score in scores.items() if score.bits is not None}
            if ranks.is_main:
                write_base_bits(base_bits, out / "base_bits.npz")
        rows = ledger_rows(
            state.ledger,
            scores,
            phase=state.phase,
            step=state.step,
            tokens=state.tokens,
            reference_step=reference_step,
            base_bits=base_bits,
            base_bpb=untouched_bpb,
        )
        state.ledger += rows
        if trackers is not None:
            trackers.ledger(rows)
        if ranks.is_main:
            write_ledger(course.rows(state.ledger), out / "ledger.parquet")
            write_json(out / "mixtures.json", course.mixtures())

    steer = None
    if config.guardrails:
        trained = [name for name, splits in facts["domains"].items() if splits["train"]["tokens"]]
        check_guarded(config.guardrails, domains, trained)
        if phase is not None and state.phase == phase.name:
            refuse_given_up(state, config.guardrails, config.phases)
        steer = open_steering(
            config.guardrails, batches, reference_step, out, progress, ranks.is_main, course.decisions
        )
        if ranks.is_main:
            write_decisions(course.decisions(state.decisions), out)

    later_references: list[dict[str, Any]] = []

    def refer_later_domains() -> None:
        """Scores the reference on domains that came after it was measured, so that they have one too."""
        first = next((row for row in state.ledger if row["step"] == reference_step), None)
        known = {row["domain"] for row in [*state.ledger, *later_references] if row["step"] == reference_step}
        missing = [domain for domain in domains if domain not in known]
        if first is not None and missing and not ranks.alone:
            progress.say(f"warning: {', '.join(missing)} have no base to compare with; one process alone measures it")
        elif first is not None and missing:
            rows, bits = score_reference(config, out, reference, missing, heldout_length, first, device, untouched_bpb)
            later_references.extend(rows)
            if untouched_bpb is None:
                base_bits.update(bits)
                write_base_bits(base_bits, out / "base_bits.npz")
        have = {row["domain"] for row in state.ledger if row["step"] == reference_step}
        if first is not None:
            state.ledger += [row for row in later_references if row["domain"] not in have]

    if not state.ledger:
        state.begin(config.phases[0].name)
        measure(state)

    # ---- the phases
    def begin(state: TrainingState, phase: PhaseConfig) -> None:
        """Turns the data to a phase that begins, or to the recipe's mixture where that has changed under way."""
        if state.phase_step:
            batches.go_on(phase.mixture)
        else:
            batches.start_phase(phase.mixture, phase.sequence_length, phase.name)
        if ranks.is_main:
            write_json(out / "mixtures.json", course.mixtures())

    loop = Loop(
        out=out,
        checkpoint=config.checkpoint,
        clip=config.optimizer.clip,
        dtype=dtype,
        tokenizer=tokens / "tokenizer",
        eod_id=facts["tokenizer"]["eod_id"],
        progress=progress,
        micro_batch=config.micro_batch,
        activation_checkpointing=config.activation_checkpointing,
        measure=measure,
        measure_every=config.ledger.every,
        steer=steer,
        begin=begin,
        branches=course.branches(),
        trackers=trackers,
        embeddings_first=config.embeddings_first or 0,
        first_new_id=facts["tokenizer"]["extends"]["first_new_id"] if untouched_bpb is not None else None,
        ignored=ignored_tokens(config.phases, tokens / "tokenizer"),
    )
    with trackers or nullcontext():
        while phase is not None:
            metrics.cut_phases({phase.name: course.last_steps[phase.name]})
            refer_later_domains()
            if ranks.is_main:
                begin_mark(config, start, out, phase, shards)
            run_phase(state, phase, course.segment(phase), loop, dict(chain)[phase.name])
            course.look()
            phase = course.next_phase()

    final = config.final_phase or config.phases[-1].name
    ends = [course.finished[phase.name] for phase in config.phases]
    if ranks.is_main:
        write_ledger(course.rows(state.ledger), out / "ledger.parquet")
        write_json(out / "mixtures.json", course.mixtures())
    joules: dict[str, float] = {}
    for end in ends:
        add_joules(joules, [end.get("phase_joules", {})])
    trained = sum(sum(end["phase_tokens_by_domain"].values()) for end in ends)
    result = {
        "base_model": UNTOUCHED if untouched_bpb is not None else f"{reference}/model",
        "final_model": f"{final}/model",
        "final_phase": final,
        "phases": [end["finished"][-1] for end in ends],
        "parameters": parameters,
        "tokens": course.finished[final]["tokens"],
        "tokens_trained": trained,
        "seconds": round(sum(end["phase_seconds"] for end in ends), 3),
        "energy": describe_energy(joules, trained),
        "heldout_sequence_length": heldout_length,
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
    }
    if ranks.is_main:
        write_json(out / "train.json", result)
    return result


def score_reference(
    config: TrainConfig,
    out: Path,
    reference: str,
    domains: list[str],
    heldout_length: int,
    first: dict[str, Any],
    device: torch.device,
    base_bpb: dict[str, float] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The ledger's rows of the reference model on more domains, and the bits of their documents; `first` is one of its
    rows. `base_bpb`: what it is compared with, where that is not itself."""
    model = load_model(out / reference / "model").to(device)
    scores = score_heldout(
        model, out / "heldout", domains, heldout_length, config.ledger.heldout_tokens, precision=config.precision
    )
    bits = {domain: score.bits for domain, score in scores.items() if score.bits is not None}
    place = {key: first[key] for key in ("phase", "step", "tokens")}
    return ledger_rows(
        [], scores, reference_step=first["step"], base_bits=None if base_bpb else bits, base_bpb=base_bpb, **place
    ), bits


def open_trackers(config: TrainConfig, out: Path, chain: Chain, progress: Progress) -> Trackers | None:
    """Those the recipe names; None where it names none."""
    if not (config.telemetry.tensorboard or config.telemetry.wandb):
        return None
    return Trackers(
        config.telemetry, out, chain[-1][1], config.model_dump(mode="json", exclude={"telemetry"}), progress
    )


def place_model(
    model: Decoder,
    config: TrainConfig,
    device: torch.device,
    ranks: Ranks,
    base_folder: Path | None,
    dtype: torch.dtype,
    seed: int,
) -> Decoder | Pipeline:
    """Brings a model to its device, or to theirs the shards of an empty one, filled from `base_folder` or `seed`.

    Raises:
        RecipeError: model or phases do not divide by the degrees of `parallel`, or cannot be compiled with them.
        DataError: the base's files are damaged.
    """
    if config.float8:
        if config.lora or config.parallel.tensor > 1 or dtype != torch.bfloat16:
            raise RecipeError(
                "train.float8 goes with precision bfloat16, and not with train.lora or parallel.tensor above 1"
            )
        check_float8(device)
        multiply_in_float8(model, config.float8)
    checkpoint_activations(model.layers, config.activation_checkpointing)
    if ranks.mesh is None:
        model = model.to(device)
        if config.compile:
            for layer in model.layers:  # each by itself, so that the time it takes does not grow with their number
                layer.compile()
        return model
    check_model(model.config, config.parallel, ranks.count, config.lora)
    if config.compile and ranks.degree("tensor") > 1:
        # torch 2.13 hands a plain gradient to the redistribution of a DTensor that left a compiled layer.
        raise RecipeError("train.compile does not work with parallel.tensor above 1; leave one of them out")
    for phase in config.phases:
        check_phase(phase, config.parallel, ranks.count)
    split = parallelize(model, ranks.mesh, config.parallel, compiled=config.compile, dtype=dtype)
    # Each process reads or draws every tensor and keeps its part: none ever holds the whole model.
    split = split.to_empty(device=device)
    if base_folder is None:
        init_weights(split, seed)
        return split
    init_adapters(split, seed)
    with ranks.agreed():
        load_weights(split, base_folder)
    return split


def choose_attention(
    model: ModelConfig, config: TrainConfig, device: torch.device, dtype: torch.dtype, progress: Progress
) -> Literal["auto", "flex"]:
    """FlexAttention, where it gives on this device what dense attention gives; else dense attention, said aloud."""
    from aurora_m.model import prove_flex_attention  # it imports the compiler

    trouble = prove_flex_attention(model, max(phase.sequence_length for phase in config.phases), device, dtype)
    if trouble is None:
        return "flex"
    progress.say(f"attention: FlexAttention does not work here ({trouble}); dense masks take its place, and more time")
    return "auto"


def resolve_mixtures(config: TrainConfig, available: dict[str, int], progress: Progress) -> TrainConfig:
    """The section with every mixture as shares; those dealt by a rule are said. Raises as `resolve_mixture`."""
    phases = [resolve_mixture(phase, available) for phase in config.phases]
    for written, phase in zip(config.phases, phases, strict=True):
        if phase is not written:
            progress.say(f"phase {phase.name} takes {mixture_words(phase, available)}")
    return config.model_copy(update={"phases": phases})


def check_phases(config: TrainConfig, facts: dict[str, Any]) -> None:
    """Checks the phases against the tokens there are.

    Raises:
        RecipeError: a mixture names a domain without training tokens, or its shares do not sum to 1.
    """
    known = [domain for domain, splits in facts["domains"].items() if splits["train"]["tokens"]]
    for phase in config.phases:
        for domain in phase.mixture:
            if domain in facts["domains"] and domain not in known:
                raise RecipeError(
                    f"phase {phase.name}: domain '{domain}' has no training tokens; give it sources or leave it out"
                )
        weights = phase.loss.weights if phase.loss else {}
        if unknown := [domain for domain in weights if domain not in facts["domains"]]:
            raise RecipeError(
                f"phase {phase.name}: loss.weights names an unknown domain '{unknown[0]}'; "
                f"the domains are {', '.join(facts['domains'])}"
            )
        if not any(share and weights.get(domain, 1.0) for domain, share in phase.mixture.items()):
            raise RecipeError(f"phase {phase.name}: loss.weights is 0 for all its domains; nothing would be learned")
        try:
            check_shares(phase.name, phase.mixture, known)
        except ValueError as error:
            raise RecipeError(str(error)) from None


def warn_of_epochs(config: TrainConfig, facts: dict[str, Any], progress: Progress) -> None:
    """One line naming the domains that the phases up to any one of them will go through more than four times."""
    epochs: dict[str, float] = {}
    available = epoch_tokens(facts)
    for last in config.phases:
        on_the_way = planned_tokens(config.phases, last.name)
        planned: dict[str, float] = {}
        for phase in config.phases:
            for domain, share in phase.mixture.items():
                planned[domain] = planned.get(domain, 0.0) + share * on_the_way.get(phase.name, 0)
        for domain, tokens in planned.items():
            epochs[domain] = max(epochs.get(domain, 0.0), tokens / available[domain])
    many = [f"{domain} {count:.1f}" for domain, count in epochs.items() if count > _MANY_EPOCHS]
    if many:
        progress.say(f"warning: more than {_MANY_EPOCHS} epochs over {', '.join(many)}; more text would teach more")


def build_model(
    config: TrainConfig, base: BaseConfig, base_folder: Path | None, vocab_size: int, seed: int, *, empty: bool = False
) -> Decoder:
    """The model training starts from, float32 on the CPU; `empty`: its layout alone, on the meta device.

    Raises:
        RecipeError: it has fewer tokens than the tokenizer, or fewer positions than a phase's sequences; adapters are
            asked for on a model from scratch.
        DataError: the base's files are damaged.
    """
    if config.lora and not base.path:
        raise RecipeError(
            "train.lora adapts an existing model: give base.path, or leave lora out to train from scratch"
        )
    if base_folder:
        sizes = read_config(base_folder)
    elif base.architecture:
        sizes = base.architecture.model_config_for(vocab_size)
    else:
        raise RecipeError(f"base {base.path} has not been fetched; pass its folder as base_folder")
    if empty:
        with torch.device("meta"):
            model = Decoder(sizes)
    elif base_folder:
        model = load_model(base_folder)
    else:
        model = Decoder(sizes)
        model.init_weights(seed)
    if vocab_size > model.config.vocab_size:
        raise RecipeError(
            f"the tokenizer has {vocab_size} tokens and the base model {model.config.vocab_size}; "
            "use the base model's own tokenizer (leave tokenizer.train and tokenizer.path out), or tokenizer.extend"
        )
    for phase in config.phases:
        if phase.sequence_length > model.config.max_positions:
            raise RecipeError(
                f"phase {phase.name}: sequence_length {phase.sequence_length} is more than the model's "
                f"{model.config.max_positions} positions; shorten it or choose a base with more"
            )
    return model


def open_batches(config: TrainConfig, tokens: Path, out: Path, facts: dict[str, Any], seed: int) -> TrainBatches:
    """The training data of all domains, so that a phase added later finds the cursors of the earlier ones unmoved."""
    opened = {domain: LastingDocuments(tokens, domain, out) for domain in trained_on(facts)}
    first, tokenizer = config.phases[0], facts["tokenizer"]
    return TrainBatches(
        opened, first.mixture, first.sequence_length, seed, tokenizer["eod_id"], config.fim, tokenizer["fim"]
    )


def settle(
    config: TrainConfig, start: dict[str, Any], tokens: Path, out: Path, facts: dict[str, Any], progress: Progress
) -> dict[str, str]:
    """Moves aside what is to be trained again and numbers the documents; returns the fingerprints of the domains'."""
    out.mkdir(parents=True, exist_ok=True)
    shards = fingerprint_documents(tokens, facts)
    edits = settle_edits(config, start, out, shards, progress)
    if all(edit.fate in ("new", "redone") for edit in edits):
        forget_documents(out)
    keep_documents(tokens, out, facts, shards, progress)
    return shards


def run_start(
    config: TrainConfig, base: BaseConfig, base_folder: Path | None, tokens: Path, seed: int
) -> dict[str, Any]:
    """What every phase's result depends on. Machine, threads, compilation, micro batches change rounding only; of the
    documents each phase takes those there are.
    """
    rows = tokens / BASE_FOLDER / ROWS_FILE
    return {
        **start_settings(config, seed),
        "base": fingerprint_large(base_folder) if base_folder else base.model_dump(mode="json"),
        "tokenizer": fingerprint_large(tokens / "tokenizer", ("tokenizer.json",)),
        **({"new_rows": fingerprint_large(rows.parent, (ROWS_FILE,))} if base_folder and rows.exists() else {}),
    }


def foresee(config: TrainConfig, seed: int, tokens: Path, out: Path) -> list[str]:
    """What running would do with phases that have changed, one line each, without the base at hand.

    Base, tokenizer and documents are taken to be those that the phases were trained with.
    """
    return describe_edits(_foreseen(config, seed, tokens, out))


def is_under_way(config: TrainConfig, seed: int, tokens: Path, out: Path) -> bool:
    """Whether a training that has begun has something left to do by this recipe that it would go on to."""
    fates = [edit.fate for edit in _foreseen(config, seed, tokens, out)]
    return ("finished" in fates and "new" in fates) or "goes on" in fates


def _foreseen(config: TrainConfig, seed: int, tokens: Path, out: Path) -> list[Edit]:
    """The edits by what is known before the stages that come first; none where nothing was trained yet."""
    marks = (read_mark(out, phase.name) for phase in config.phases)
    start = next((mark["settings"]["start"] for mark in marks if "settings" in mark), None)
    if start is None or not (tokens / "tokens.json").exists():
        return []
    available = epoch_tokens(read_json(tokens / "tokens.json"))
    try:
        phases = [resolve_mixture(phase, available) for phase in config.phases]
    except RecipeError:  # a mixture by rule over a domain that is still to be tokenized
        return []
    return foresee_edits(config.model_copy(update={"phases": phases}), start | start_settings(config, seed), out)


def start_settings(config: TrainConfig, seed: int) -> dict[str, Any]:
    """The part of `run_start` that the recipe says."""
    return {
        "seed": seed,
        "optimizer": config.optimizer.model_dump(mode="json"),
        "fim": config.fim and config.fim.model_dump(mode="json"),
        "precision": config.precision,
        "heldout_tokens": config.ledger.heldout_tokens,
        **({"lora": config.lora.model_dump(mode="json")} if config.lora else {}),
        **({"float8": config.float8} if config.float8 else {}),
        **({"embeddings_first": config.embeddings_first} if config.embeddings_first else {}),
    }


def export_missing_models(
    state: TrainingState, out: Path, chain: Chain, reference: str, tokenizer: Path, eod_id: int
) -> None:
    """Writes the models that should be there and are not: the initial one, and finished phases' that were deleted."""
    ranks = state.ranks
    if reference == "initial" and ranks.from_main(not (out / "initial" / "model").exists()):
        if ranks.is_main:
            mark_phase(out, *chain[0])
        export_model(state.model, out / "initial" / "model", tokenizer, eod_id, ranks)
    for name, fingerprint in chain[1:]:
        for folder in ranks.from_main(_without_model(out, name, fingerprint)):
            try:
                state.load(folder)
                rate = state.finished[-1].get("final_lr")
                export_model(state.model, out / name / "model", tokenizer, eod_id, ranks, rate)
            except DataError:
                continue  # `resume` finds it damaged too, says so, and redoes what it must


def _without_model(out: Path, name: str, fingerprint: str) -> list[Path]:
    """The last checkpoint of a phase that is finished and whose model is not there."""
    record = newest_record(out, name, fingerprint)
    if record is None or not is_finished(record, name) or (out / name / "model").exists():
        return []
    return [checkpoint_folder(out / name, record["step"])]
