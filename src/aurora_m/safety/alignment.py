"""The align stage: supervised tuning of the trained model on explained refusals and on answers to harmless look-alikes.

out/SFT/{checkpoints,model}/   as a training phase's, by the same loop
out/metrics.jsonl              its steps; tokens count from the phase's own start
out/superseded/                what an earlier recipe, model or set of prompts had left here
out/align.json                 what was tuned on what
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from ..model import Decoder, add_adapters, count_parameters, load_model, save_model
from ..tokens import DomainTokens, TrainBatches, load_tokenizer
from ..training import (
    CheckpointConfig,
    Loop,
    MetricsFile,
    OptimizerConfig,
    PhaseConfig,
    TrainingState,
    build_optimizer,
    fingerprint_large,
    leave_out_quarantined,
    pick_device,
    resolve_precision,
    resume,
    run_phase,
    segment_of,
    set_aside,
)
from ..workspace import (
    DataError,
    Progress,
    RecipeError,
    atomic_folder,
    fingerprint,
    format_count,
    read_json,
    write_json,
)
from .config import TUNING_DOMAIN, AlignConfig, ReplayConfig
from .prompts import Prompt, load_prompts, select_reviewed, shipped_prompt_files
from .tuning import INSTRUCTION_TEMPLATE, ResponseBatches, encode_prompts

PHASE = "SFT"
_REPLAYED = ("*.idx", "*.bin", "*.weights.npy")


def align(
    config: AlignConfig,
    train: Path,
    tokens: Path,
    out: Path,
    *,
    seed: int,
    progress: Progress,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> dict[str, Any]:
    """Tunes the model that training ended with, going on where an earlier call was stopped, and returns `align.json`.

    With `enabled: false` nothing is tuned and `final_model` points back at the trained model.

    Args:
        train: the train stage's folder.
        tokens: the tokenize stage's folder, for its tokenizer, and for the text to replay.
        out: lasts over calls; what was tuned stays as long as model, prompts and settings are the same.

    Raises:
        RecipeError: the settings do not fit the model or the tokens.
        DataError: no prompt may be used, a row is wrong, or files are damaged.
        StoppedByUser: Ctrl-C, SIGTERM or SIGUSR1, after writing a checkpoint.
    """
    trained = read_json(train / "train.json")
    source = train / trained["final_model"]
    out.mkdir(parents=True, exist_ok=True)
    if not config.enabled:
        return _pass_on(source, out, progress)

    final_phase = trained.get("final_phase", trained["phases"][-1]["name"])
    last_phase = next(row for row in trained["phases"] if row["name"] == final_phase)
    data = open_data(config, last_phase, tokens, seed)
    batches = data.batches
    phase = plan_phase(config, data, progress)

    # ---- model and optimizer
    torch.manual_seed(seed)
    device = pick_device()
    dtype = resolve_precision(precision, device)
    model = load_model(source)
    if config.lora:
        add_adapters(model, config.lora, seed, dtype)
    model = model.to(device)
    _check_positions(model, phase.sequence_length)
    optimizer = OptimizerConfig.model_validate({})
    state = TrainingState(model, build_optimizer(model, optimizer), batches)

    # ---- where the run stands
    start = {
        "model": fingerprint_large(source),
        "tokens": fingerprint_large(tokens, ("tokenizer.json", *(_REPLAYED if config.replay else ()))),
        "rows": [[prompt.instruction, prompt.response] for prompt in data.prompts],
        "template": INSTRUCTION_TEMPLATE,
        "phase": phase.model_dump(mode="json"),
        "optimizer": optimizer.model_dump(mode="json"),
        "seed": seed,
        "dtype": str(dtype),
        **({"lora": config.lora.model_dump(mode="json")} if config.lora else {}),
    }
    chain = [(PHASE, fingerprint(start))]
    set_aside(out, chain, progress)
    if resume(state, out, chain, progress) and not state.finished:
        progress.say(f"resuming after step {state.step} of phase {PHASE} ({format_count(state.tokens)} tokens)")
    leave_out_quarantined(batches, out, chain)
    MetricsFile(out / "metrics.jsonl").cut(state.metrics_position)

    # ---- the phase
    loop = Loop(
        out=out,
        # Once an epoch: Ctrl-C saves anyway, and what a kill can cost is little beside the training before it.
        checkpoint=CheckpointConfig(every=max(1, int(phase.tokens / config.epochs)), keep=1),
        clip=optimizer.clip,
        dtype=dtype,
        tokenizer=tokens / "tokenizer",
        eod_id=data.eod_id,
        progress=progress,
    )
    if not state.finished:
        run_phase(state, phase, segment_of(phase), loop, chain[0][1])
    elif not (out / PHASE / "model").exists():
        with atomic_folder(out / PHASE / "model") as temporary:
            save_model(model, temporary, loop.tokenizer, eod_id=loop.eod_id)

    result = {
        "enabled": True,
        "base_model": _relative(source, out),
        "final_model": f"{PHASE}/model",
        **data.describe(),
        "tokens": state.tokens,
        "response_tokens": batches.response_tokens,
        "epochs": round(batches.epochs[TUNING_DOMAIN], 3),
        "epochs_asked": config.epochs,
        "replay": config.replay and {"share": config.replay.share, "mixture": data.replay_mixture},
        "phases": state.finished,
        "parameters": count_parameters(model),
        "seconds": round(state.seconds, 3),
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
    }
    write_json(out / "align.json", result)
    return result


@dataclass(frozen=True)
class TuningData:
    """The rows used, as batches."""

    prompts: list[Prompt]
    batches: ResponseBatches
    replay_mixture: dict[str, float]
    eod_id: int
    left_out: dict[str, int]  # by reason

    def describe(self) -> dict[str, Any]:
        """The rows, counted by what people will ask of them."""
        examples = self.batches.examples
        return {
            "examples": len(examples),
            "truncated": sum(example.truncated for example in examples),
            "left_out": self.left_out,
            "review": _count(prompt.review.status for prompt in self.prompts),
            "by_kind": _count(prompt.kind for prompt in self.prompts),
            "by_concern": _count(prompt.concern for prompt in self.prompts),
            "by_language": _count(prompt.lang for prompt in self.prompts),
            "licenses": _count(prompt.license for prompt in self.prompts),
        }


def open_data(config: AlignConfig, last_phase: dict[str, Any], tokens: Path, seed: int) -> TuningData:
    """The training split of all files as batches; `last_phase` of training gives what the recipe leaves open.

    Raises:
        DataError: a row is wrong, or none may be used.
        RecipeError: the replay names domains without text.
    """
    rows = load_prompts([*shipped_prompt_files(), *config.data], split="train")
    usable = select_reviewed(rows, config.review)
    if not usable:
        raise DataError(_nothing_to_use(rows, config))
    tokenizer = load_tokenizer(tokens / "tokenizer")
    length = config.sequence_length or last_phase["sequence_length"]
    examples = encode_prompts(usable, tokenizer, length)
    kept = [(prompt, example) for prompt, example in zip(usable, examples, strict=True) if example]
    if not kept:
        raise DataError(f"align: no instruction leaves room for a response in sequence_length {length}; give it more")
    share = config.replay.share if config.replay else 0.0
    mixture = _replay_mixture(config.replay, last_phase["mixture"])
    replay = _open_replay(mixture, tokens, length, seed, tokenizer.eod_id)
    return TuningData(
        prompts=[prompt for prompt, _ in kept],
        batches=ResponseBatches([example for _, example in kept], length, seed, tokenizer.eod_id, replay, share),
        replay_mixture=mixture,
        eod_id=tokenizer.eod_id,
        left_out={"review": len(rows) - len(usable), "too_long": len(usable) - len(kept)},
    )


def plan_phase(config: AlignConfig, data: TuningData, progress: Progress) -> PhaseConfig:
    """The phase SFT: as many whole steps as give every example its epochs.

    How many steps those are is known only now, when training is over; so what does not fit them is adjusted and said,
    where a training phase would be refused.

    Raises:
        RecipeError: the learning rate's schedule makes no sense.
    """
    length = data.batches.sequence_length
    sequences_per_step = max(1, round(config.tokens_per_step / length))
    tokens_per_step = sequences_per_step * length
    if tokens_per_step != config.tokens_per_step:
        progress.say(f"align: {tokens_per_step} tokens per step, the nearest multiple of sequence_length {length}")
    steps = -(-data.batches.count_sequences(config.epochs) // sequences_per_step)
    lr, span = config.lr, config.lr.over or steps * tokens_per_step
    if lr.warmup_tokens(tokens_per_step) > span // 2:
        lr = lr.model_copy(update={"warmup": span // 2})
        progress.say(f"align: warm-up cut to {span // 2} tokens, half of the schedule; the phase has {steps} steps")
    share = config.replay.share if config.replay else 0.0
    shares = Counter({TUNING_DOMAIN: 1 - share}) + Counter({d: share * part for d, part in data.replay_mixture.items()})
    try:
        return PhaseConfig(
            name=PHASE,
            tokens=steps * tokens_per_step,
            mixture=dict(shares),
            sequence_length=length,
            tokens_per_step=tokens_per_step,
            lr=lr,
        )
    except ValidationError as error:
        raise RecipeError(f"align: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _pass_on(source: Path, out: Path, progress: Progress) -> dict[str, Any]:
    """No tuning: what follows gets the trained model; an earlier tuning is kept aside."""
    set_aside(out, [], progress)
    MetricsFile(out / "metrics.jsonl").cut(0)
    result = {"enabled": False, "base_model": _relative(source, out), "final_model": _relative(source, out)}
    result |= {"examples": 0, "tokens": 0}
    write_json(out / "align.json", result)
    return result


def _relative(folder: Path, start: Path) -> str:
    return Path(os.path.relpath(folder, start)).as_posix()


def _replay_mixture(replay: ReplayConfig | None, last_mixture: dict[str, float]) -> dict[str, float]:
    if replay is None:
        return {}
    return dict(last_mixture if replay.mixture is None else replay.mixture)


def _open_replay(
    mixture: dict[str, float], tokens: Path, sequence_length: int, seed: int, eod_id: int
) -> TrainBatches | None:
    """Pretraining text from the beginning of its order: what the model saw longest ago. Nothing is rearranged."""
    if not mixture:
        return None
    known = read_json(tokens / "tokens.json")["domains"]
    empty = [
        name for name, share in mixture.items() if share > 0 and name in known and not known[name]["train"]["tokens"]
    ]
    if empty:
        raise RecipeError(
            f"align.replay: {', '.join(empty)} has no training tokens; give it sources, or name other domains in "
            "align.replay.mixture"
        )
    domains = {domain: DomainTokens(tokens, domain) for domain, facts in known.items() if facts["train"]["tokens"]}
    try:
        return TrainBatches(domains, mixture, sequence_length, seed, eod_id)
    except RecipeError as error:
        raise RecipeError(f"align.replay: {error}") from None


def _check_positions(model: Decoder, sequence_length: int) -> None:
    if sequence_length > model.config.max_positions:
        raise RecipeError(
            f"align.sequence_length {sequence_length} is more than the model's {model.config.max_positions} positions; "
            "shorten it or leave it out"
        )


def _nothing_to_use(prompts: list[Prompt], config: AlignConfig) -> str:
    statuses = ", ".join(f"{count} {status}" for status, count in _count(p.review.status for p in prompts).items())
    return (
        f"align.review is {config.review!r}, and no row of the training split may be used "
        f"({statuses or 'there is none'}); review some, use `review: any`, or set align.enabled to false"
    )


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
