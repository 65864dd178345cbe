"""A recipe in words and tables: what it would do, with how many tokens of what, over how many epochs."""

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ..model import ModelConfig
from ..training import PhaseConfig, epoch_tokens, resolve_mixture
from ..workspace import format_count, read_json
from .recipe import Recipe

# A domain read more often than this is warned about: four epochs of a scarce language are fine, more overfit.
_EPOCHS_WARNED_ABOUT = 4.0


def explain_recipe(recipe: Recipe, run: Path) -> RenderableType:
    """The recipe for people. What the domains hold comes from the run's `tokens.json`, once there is one."""
    available = _available_tokens(run)
    return Group(
        _headline(recipe),
        _domain_table(recipe),
        _phase_table(recipe),
        _token_table(recipe, available),
        _what_follows(recipe, available),
    )


def shares_by_phase(recipe: Recipe, available: dict[str, int]) -> dict[str, dict[str, float | None]]:
    """Each phase's mixture, None for the shares that a rule deals by what is not known yet.

    Raises:
        RecipeError: the domains hold too little for a rule.
    """
    shares: dict[str, dict[str, float | None]] = {}
    for phase in recipe.train.phases:
        if available:
            phase = resolve_mixture(phase, available)
        shares[phase.name] = {**phase.mixture, **dict.fromkeys(phase.rest.domains if phase.rest else [])}
    return shares


def _headline(recipe: Recipe) -> str:
    base = recipe.base
    start = f"continues {base.path}"
    if base.architecture:
        features = _features(base.architecture.model_config_for(vocab_size=1))
        start = f"trains a {base.architecture.family} model from scratch first ({features})"
    total = format_count(sum(phase.tokens for phase in recipe.train.phases))
    lines = [
        f"[bold]{escape(recipe.name)}[/bold]: {escape(start)}; {total} tokens in {len(recipe.train.phases)} phases"
    ]
    for stage, lora in (("training", recipe.train.lora), ("safety tuning", recipe.align.lora)):
        if lora:
            targets = ", ".join(lora.targets or ["all matrices of the layers"])
            lines.append(f"LoRA in {stage}: rank {lora.rank}, alpha {lora.alpha:g}, on {targets}; merged on export.")
    if guardrails := recipe.train.guardrails:
        budgets = ", ".join(f"{escape(domain)} {100 * budget:g}" for domain, budget in guardrails.budget.items())
        otherwise = {"stop": "else it stops", "continue": "else it says so", "lower rate": "else the rate is lowered"}
        lines.append(
            f"Guardrails: at most so many percent more bits per byte than the base at each phase's end: {budgets}; "
            f"replay moves from {guardrails.floor:.1%} each to {guardrails.ceiling:.0%} of all tokens for it, "
            f"{otherwise[guardrails.infeasible]}."
        )
    if recipe.description:
        lines.append(escape(recipe.description.strip()))
    return "\n".join(lines) + "\n"


def _features(model: ModelConfig) -> str:
    """What the model is made of, in words."""
    heads = f"{model.heads} heads of {model.head_size}"
    if model.kv_heads != model.heads:
        heads += f" with {model.kv_heads} for keys and values"
    words = [f"{model.layers} layers", f"hidden size {model.hidden_size}", heads]
    words.append({"alibi": "ALiBi"}.get(model.positions, f"{model.positions} positions"))
    words.append({"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}[model.norm])
    if model.norm_place == "after":
        words[-1] += " after the sublayers"
    if model.qk_norm:
        words.append("QK norm")
    words.append(f"{'gated' if model.gated_mlp else 'plain'} MLP of {model.ffn_size}")
    if model.sliding_window:
        words.append(f"sliding window of {model.sliding_window}")
    return ", ".join([*words, f"{'tied' if model.tied_embeddings else 'own'} head"])


def _domain_table(recipe: Recipe) -> Table:
    table = Table("domain", "language", "rules", "sources", title="Domains", title_justify="left")
    for name, domain in recipe.domains.items():
        sources = "\n".join(_source_line(source) for source in domain.sources)
        table.add_row(escape(name), domain.lang or "", domain.rules, escape(sources))
    return table


def _source_line(source: Any) -> str:
    notes = [f"licence {source.license}"] if source.license else []
    notes += [f"pairs of {' and '.join(source.pairs.langs)}"] if source.pairs else []
    notes += [f"at most {format_count(source.limit_documents)} documents"] if source.limit_documents else []
    notes += [f"at most {format_count(source.limit_bytes)} bytes"] if source.limit_bytes else []
    return f"{source.kind} {source.path}" + (f" ({', '.join(notes)})" if notes else "")


def _phase_table(recipe: Recipe) -> Table:
    table = Table("phase", "tokens", "steps", "sequence", "learning rate", title="Phases", title_justify="left")
    for number, phase in enumerate(recipe.train.phases):
        table.add_row(
            f"{phase.name} (from {phase.from_})" if phase.from_ else phase.name,
            format_count(phase.tokens),
            _step_words(phase),
            str(phase.sequence_length),
            _rate_words(phase, "the base's last rate" if number == 0 else "the last rate"),
        )
    return table


def _step_words(phase: PhaseConfig) -> str:
    size = format_count(phase.tokens_per_step)
    if phase.ramp is None:
        return f"{phase.steps:,} of {size} tokens"
    words = [
        format_count(one) for one in (phase.ramp.start, phase.ramp.increment(phase.tokens_per_step), phase.ramp.over)
    ]
    return f"{phase.steps:,} of {words[0]} to {size} tokens,\ngrowing by {words[1]} over {words[2]}"


def _rate_words(phase: PhaseConfig, last: str) -> str:
    """A learning-rate segment, a line for each of its parts."""
    lr = phase.lr
    if lr.continues:
        return "goes on along the previous phase's curve"
    peak, start = (last if rate == "last" else f"{rate:g}" for rate in (lr.peak, lr.start))
    lines = [f"from {peak}"]
    if phase.warmup_tokens:
        steps = f" ({lr.warmup})" if isinstance(lr.warmup, str) else ""
        lines = [f"warm-up from {start} to {peak} over {format_count(phase.warmup_tokens)} tokens{steps}"]
    if lr.decay == "constant":
        return "\n".join([*lines, "constant from there"])
    shape = "cosine" if lr.decay == "infinite" else lr.decay
    span = phase.tokens if lr.over is None else lr.over
    lines.append(f"{shape} to {lr.to:g} at {format_count(span)} tokens")
    if span < phase.tokens:
        lines.append(f"constant from there to {format_count(phase.tokens)}")
    elif span > phase.tokens:
        lines[-1] += f"; the phase ends on the slope, at {format_count(phase.tokens)}"
    return "\n".join(lines)


def _token_table(recipe: Recipe, available: dict[str, int]) -> Table:
    shares = shares_by_phase(recipe, available)
    table = Table("domain", *shares, "all", "has", "epochs", title="Tokens by domain", title_justify="left")
    for domain in recipe.domains:
        cells, taken = [], 0.0
        for phase in recipe.train.phases:
            share = shares[phase.name].get(domain, 0.0)
            cells.append(
                "?" if share is None else f"{format_count(share * phase.tokens)} ({share:.1%})" if share else ""
            )
            taken += (share or 0.0) * phase.tokens
        known = None not in [by_domain.get(domain, 0.0) for by_domain in shares.values()]
        total = format_count(taken) if known else "?"
        table.add_row(escape(domain), *cells, total, *_epoch_cells(taken, available.get(domain)))
    return table


def _epoch_cells(taken: float, available: int | None) -> tuple[str, str]:
    if not available:
        return "?", "?"
    epochs = taken / available
    return format_count(available), f"{epochs:.2f}" + (" (!)" if epochs > _EPOCHS_WARNED_ABOUT else "")


def _what_follows(recipe: Recipe, available: dict[str, int]) -> str:
    lines = []
    if not available:
        lines.append("`?`: known once the domains are tokenized.")
    if recipe.align.enabled:
        lines.append(f"Then {recipe.align.epochs:g} epochs of safety tuning on reviewed instruction/response pairs,")
        lines.append(
            "held-out bits-per-byte of every domain against the base, refusal and over-refusal before and after,"
        )
        lines.append("a release folder and a report.")
    else:
        lines.append("No safety tuning (align.enabled is false); then evaluation, a release folder and a report.")
    return "\n" + "\n".join(lines)


def _available_tokens(run: Path) -> dict[str, int]:
    path = run / "tokens" / "tokens.json"
    return epoch_tokens(read_json(path)) if path.exists() else {}
