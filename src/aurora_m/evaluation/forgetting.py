"""What was forgotten: held-out bits-per-byte of every domain, for base, trained and aligned model side by side."""

from pathlib import Path
from typing import Any, Literal

from aurora_m.model import load_model
from aurora_m.tokens import BASE_FOLDER
from aurora_m.training import HeldoutScore, chosen_documents, heldout_domains, pick_device, score_heldout
from aurora_m.workspace import Progress, fingerprint_file, read_json

from .config import EvaluateConfig

Precision = Literal["auto", "float32", "bfloat16"]


def measure_forgetting(
    models: dict[str, Path], tokens: Path, config: EvaluateConfig, progress: Progress
) -> dict[str, Any]:
    """Scores the models on all held-out sets; `models` maps `base` and any of `trained`, `aligned` to folders.

    Windows have the length the run's ledger was measured with, so that the figures can be laid beside it.
    A folder named twice is scored once.

    Returns:
        `{"models": {name: {"path", "bpb": {domain: x}, "stderr": {domain: x}}}, "forgetting": {domain: {"base_bpb",
        "<name>_bpb", "<name>_change"}}, "heldout_sequence_length": n}`; a change of 0.05 is 5% more bits than the base.

    Raises:
        DataError: a model or a token shard is damaged.
    """
    domains = heldout_domains(tokens)
    length, precision = ledger_settings(models)
    chosen = chosen_documents(tokens, config.heldout_tokens)
    scores: dict[Path, dict[str, HeldoutScore]] = {}
    with progress.task("held-out scores", total=len(set(models.values())), unit="models") as task:
        for name, path in models.items():
            if path not in scores:
                model = load_model(path, device=pick_device())
                own = tokens_of(path, tokens)
                scores[path] = score_heldout(model, own, domains, length, precision=precision, chosen=chosen)
                task.advance(1, note=name)
    return {
        "models": {name: _describe(path, scores[path]) for name, path in models.items()},
        "forgetting": {
            domain: _compare({name: scores[path][domain].bpb for name, path in models.items()}) for domain in domains
        },
        "heldout_sequence_length": length,
    }


def tokens_of(model: Path, tokens: Path) -> Path:
    """Where the held-out documents lie in a model's own tokens: a base whose tokenizer was extended has another one."""
    own, base = model / "tokenizer.json", tokens / BASE_FOLDER / "tokenizer" / "tokenizer.json"
    is_base = own.is_file() and base.is_file() and fingerprint_file(own) == fingerprint_file(base)
    return tokens / BASE_FOLDER if is_base else tokens


def ledger_settings(models: dict[str, Path]) -> tuple[int, Precision]:
    """Window and precision of the run's ledger, from the `train.json` two folders above a model; else what all take.

    A longer window than the one trained with would blame a model for positions it has never seen.
    """
    for path in models.values():
        train_json = path.parent.parent / "train.json"
        if train_json.is_file():
            facts = read_json(train_json)
            return int(facts["heldout_sequence_length"]), facts["dtype"]
    return min(_max_positions(path) for path in models.values()), "auto"


def _max_positions(folder: Path) -> int:
    config = read_json(folder / "config.json")
    return min(2048, int(config.get("n_positions") or config.get("max_position_embeddings") or 2048))


def _describe(path: Path, scores: dict[str, HeldoutScore]) -> dict[str, Any]:
    return {
        "path": str(path),
        "bpb": {domain: score.bpb for domain, score in scores.items()},
        "stderr": {domain: score.stderr for domain, score in scores.items()},
    }


def _compare(bpb: dict[str, float]) -> dict[str, float]:
    row = {f"{name}_bpb": value for name, value in bpb.items()}
    return row | {f"{name}_change": value / bpb["base"] - 1 for name, value in bpb.items() if name != "base"}
