"""What a phase's loss leaves out or weighs: whole domains, whose text may be read without being learned, and tokens.

The mean is over all weights of a step, on all ranks: with weights w of the scored tokens it is sum(w nll) / sum(w).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aurora_m.model import IGNORED
from aurora_m.tokens import Batch, load_tokenizer
from aurora_m.workspace import RecipeError

from .phase_config import LossConfig, PhaseConfig


def ignored_tokens(phases: list[PhaseConfig], tokenizer: Path) -> dict[str, np.ndarray]:
    """The ids that a phase's loss leaves out, int64, by phase; the tokenizer is read only where there are such.

    Raises:
        RecipeError: a token that the tokenizer does not have.
    """
    wanted = {phase.name: phase.loss.ignore for phase in phases if phase.loss and phase.loss.ignore}
    backend = load_tokenizer(tokenizer).backend if wanted else None
    found = {}
    for name, tokens in wanted.items():
        assert backend is not None
        ids = {token: backend.token_to_id(token) for token in tokens}
        if missing := [token for token, id in ids.items() if id is None]:
            raise RecipeError(
                f"phase {name}: loss.ignore names {missing[0]!r}, which is no token of the tokenizer; "
                "tokens are written as in its tokenizer.json"
            )
        found[name] = np.array(list(ids.values()), np.int64)
    return found


def weigh(batch: Batch, loss: LossConfig | None, ignored: np.ndarray | None) -> Batch:
    """The batch with the weights of its sequences, and targets that are left out set to -100; itself without either."""
    if ignored is not None:
        batch = replace(batch, targets=np.where(np.isin(batch.targets, ignored), IGNORED, batch.targets))
    if loss and loss.weights:
        batch = replace(batch, weights=np.array([loss.weights.get(domain, 1.0) for domain in batch.domains]))
    return batch


def valid_targets(batch: Batch) -> np.ndarray:
    """How many targets of each sequence are scored, int64[n]."""
    return (batch.targets != IGNORED).sum(axis=1)


def loss_factors(batch: Batch) -> float | np.ndarray:
    """What the nll of each token is multiplied with for the mean of a step: one number, or float64[n] by sequence.

    0 where nothing is scored, or only what has no weight.
    """
    valid = valid_targets(batch)
    if batch.weights is None:
        return 1.0 / max(1, int(valid.sum()))
    total = float((batch.weights * valid).sum())
    return batch.weights / total if total else np.zeros(len(valid))


def mean_loss(batch: Batch, nll: Tensor) -> Tensor:
    """The loss of a step from the nll of its sequences, float64[n]: a scalar on their device."""
    if batch.weights is None:
        return nll.sum() / max(1, valid_targets(batch).sum())
    return (nll * torch.from_numpy(loss_factors(batch)).to(nll.device)).sum()
