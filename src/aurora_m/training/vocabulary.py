"""Training with an extended tokenizer: the base with rows for the new tokens, and the untouched base as reference.

The base is measured as it is: with the tokenizer it was trained with, on the same held-out documents. Measured with
rows that have never been trained, any training at all would look as if it made up for forgetting.

    initial/model             the base with rows for the new tokens; where training starts
    initial/base              the untouched base with its own tokenizer
    initial/base_scores.json  its held-out bits per byte
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aurora_m.model import Decoder, generator_of, write_with_new_rows
from aurora_m.tokens import BASE_FOLDER, ROWS_FILE, DomainTokens, NewRows, choose_documents, keep_base_heldout
from aurora_m.workspace import AuroraError, RecipeError, atomic_folder, read_json, write_json

from .chain import mark_phase
from .config import TrainConfig
from .ledger import HeldoutScore, heldout_domains, score_heldout, write_base_bits
from .pipelining import Pipeline
from .ranks import Ranks
from .trainer import export_model

UNTOUCHED = "initial/base"
_SCORES = "initial/base_scores.json"


def extends_base(facts: dict[str, Any], base_folder: Path | None) -> bool:
    """Whether tokens.json's tokenizer has more tokens than the base model knows."""
    return base_folder is not None and "extends" in facts["tokenizer"]


def start_extended(
    config: TrainConfig,
    base_folder: Path,
    tokens: Path,
    facts: dict[str, Any],
    out: Path,
    mark: tuple[str, str],
    seed: int,
    ranks: Ranks,
    make_untouched: Callable[[], Decoder | Pipeline],
) -> tuple[Path, dict[str, float]]:
    """Leaves what the module's docstring lists, where it is not there yet; all ranks call it together.

    `mark` is the chain's link of `initial`. Returns the folder of the model to start from, and the untouched base's
    bits per byte of every domain.

    Raises:
        DataError: base and tokenizer do not belong together, or files are damaged.
    """
    with ranks.agreed():
        if ranks.is_main:
            mark_phase(out, *mark)
            keep_base_heldout(tokens / BASE_FOLDER, out / "heldout" / BASE_FOLDER)
    base_bpb = _read_scores(out, config, ranks)
    if base_bpb is None:
        base_bpb = _measure_untouched(config, out, ranks, make_untouched)
    with ranks.agreed():
        if ranks.is_main and not (out / "initial" / "model").exists():
            _write_extended(base_folder, tokens, facts, out / "initial" / "model", seed)
    return out / "initial" / "model", base_bpb


def refuse_adapters(config: TrainConfig) -> None:
    """Raises RecipeError where adapters are asked for: they leave the rows of new tokens as they are."""
    if config.lora:
        raise RecipeError(
            "train.lora does not train the rows of tokens, so those tokenizer.extend adds would never learn; leave one "
            "of them out"
        )


def chosen_documents(tokens: Path, heldout_tokens: int | dict[str, int] | None) -> dict[str, np.ndarray]:
    """The held-out documents that a run scores, by domain; the base is scored on the same."""
    domains = heldout_domains(tokens)
    most = heldout_tokens if isinstance(heldout_tokens, dict) else dict.fromkeys(domains, heldout_tokens)
    return {domain: choose_documents(DomainTokens(tokens, domain, "heldout"), most.get(domain)) for domain in domains}


def _read_scores(out: Path, config: TrainConfig, ranks: Ranks) -> dict[str, float] | None:
    """What `_measure_untouched` wrote; None where it has to be done, or done anew."""
    found = None
    if (out / _SCORES).exists() and (out / UNTOUCHED).exists():
        try:
            scores = read_json(out / _SCORES)
            same_length = scores["sequence_length"] == config.phases[0].sequence_length
            if same_length and set(heldout_domains(out / "heldout")) <= scores["domains"].keys():
                found = {domain: row["bpb"] for domain, row in scores["domains"].items()}
        except (AuroraError, KeyError, TypeError):
            found = None
    return ranks.from_main(found)


def _measure_untouched(
    config: TrainConfig, out: Path, ranks: Ranks, make_untouched: Callable[[], Decoder | Pipeline]
) -> dict[str, float]:
    heldout = out / "heldout"
    own = heldout / BASE_FOLDER
    model = make_untouched()
    length = config.phases[0].sequence_length
    scores = score_heldout(
        model,
        own,
        heldout_domains(heldout),
        length,
        precision=config.precision,
        ranks=ranks,
        chosen=chosen_documents(heldout, config.ledger.heldout_tokens),
    )
    eod_id = read_json(own / "tokens.json")["tokenizer"]["eod_id"]
    export_model(model, out / UNTOUCHED, own / "tokenizer", eod_id, ranks)
    with ranks.agreed():
        if ranks.is_main:
            bits = {domain: score.bits for domain, score in scores.items() if score.bits is not None}
            write_base_bits(bits, out / "base_bits.npz")
            write_json(out / _SCORES, {"sequence_length": length, "domains": _described(scores)})
    return {domain: score.bpb for domain, score in scores.items()}


def _described(scores: dict[str, HeldoutScore]) -> dict[str, Any]:
    return {
        domain: {"bpb": one.bpb, "stderr": one.stderr, "documents": one.documents, "bytes": one.bytes}
        for domain, one in scores.items()
    }


def _write_extended(base_folder: Path, tokens: Path, facts: dict[str, Any], folder: Path, seed: int) -> None:
    rows = NewRows.read(tokens / BASE_FOLDER / ROWS_FILE)
    with atomic_folder(folder) as temporary:
        write_with_new_rows(
            base_folder,
            temporary,
            facts["tokenizer"]["vocab_size"],
            partial(new_rows, rows, seed=seed),
            rows.first_id,
            tokens / "tokenizer",
            facts["tokenizer"]["eod_id"],
        )


def new_rows(rows: NewRows, name: str, old: Tensor, *, seed: int) -> Tensor:
    """The first rows of new tokens (new tokens, hidden), float32, from those of the old (old tokens, hidden).

    Mixtures of old rows; with `random`, drawn from a normal distribution with the old rows' mean and deviation in each
    column.
    """
    if rows.init == "random":
        drawn = torch.empty(rows.count, old.size(1)).normal_(generator=generator_of(seed, f"new rows of {name}"))
        return drawn * old.std(dim=0) + old.mean(dim=0)
    offsets = torch.from_numpy(rows.offsets)
    mixed = torch.zeros(rows.count, old.size(1))
    weighted = old[torch.from_numpy(rows.old_ids).long()] * torch.from_numpy(rows.weights)[:, None]
    return mixed.index_add_(0, torch.repeat_interleave(torch.arange(rows.count), offsets.diff()), weighted)
