"""A recipe in words and tables: what it would do, with how many tokens of what, over how many epochs."""

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ..model import ModelConfig
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


def tokens_by_phase(recipe: Recipe) -> dict[str, dict[str, float]]:
    """Tokens each phase takes from each domain: share times budget."""
    return {
        phase.name: {domain: share * phase.tokens for domain, share in phase.mixture.items()}
        for phase in recipe.train.phases
    }


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
    for phase in recipe.train.phases:
        steps = max(1, round(phase.tokens / phase.tokens_per_step))
        table.add_row(
            phase.name,
            format_count(phase.tokens),
            f"{steps:,} of {format_count(phase.tokens_per_step)} tokens",
            str(phase.sequence_length),
            _rate_words(phase.lr),
        )
    return table


def _rate_words(lr: Any) -> str:
    if lr.continues:
        return "goes on along the previous phase's curve"
    warmup = lr.warmup if isinstance(lr.warmup, str) else f"{format_count(lr.warmup)} tokens"
    over = f" over {format_count(lr.over)} tokens" if lr.over else ""
    return f"warm-up {warmup} to {lr.peak:g}, {lr.decay} to {lr.to:g}{over}"


def _token_table(recipe: Recipe, available: dict[str, int]) -> Table:
    phases = tokens_by_phase(recipe)
    table = Table("domain", *phases, "all", "has", "epochs", title="Tokens by domain", title_justify="left")
    for domain in recipe.domains:
        taken = [by_domain.get(domain, 0.0) for by_domain in phases.values()]
        cells = [format_count(tokens) if tokens else "" for tokens in taken]
        table.add_row(
            escape(domain), *cells, format_count(sum(taken)), *_epoch_cells(sum(taken), available.get(domain))
        )
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
    if not path.exists():
        return {}
    return {name: counts["train"]["tokens"] for name, counts in read_json(path)["domains"].items()}
