"""One step: its loss and gradients do not depend on how it is split, and are counted by domain."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.training.synthetic import VOCAB_SIZE, tiny_base

from aurora_m.model import Decoder
from aurora_m.tokens import Batch
from aurora_m.training.trainer import (
    _is_due,
    accumulate_gradients,
    loss_by_domain,
    tokens_by_domain,
    valid_targets,
)


def fresh_model() -> Decoder:
    model = Decoder(tiny_base().architecture.model_config_for(VOCAB_SIZE))
    model.init_weights(1)
    return model


def random_batch(ignored: float = 0.3) -> Batch:
    random = np.random.default_rng(0)
    targets = random.integers(0, VOCAB_SIZE, (5, 32))
    targets[random.random(targets.shape) < ignored] = -100
    targets[1] = -100  # a sequence without a valid token
    documents = np.cumsum(random.random((5, 32)) < 0.1, axis=1).astype(np.int32)
    positions = np.tile(np.arange(32, dtype=np.int32), (5, 1))
    return Batch(
        random.integers(0, VOCAB_SIZE, (5, 32)),
        targets,
        documents,
        positions,
        ["aa", "bb", "aa", "cc", "aa"],
        [[0]] * 5,
    )


def mean_loss(model: Decoder, batch: Batch, micro_batch: int, dtype: torch.dtype) -> float:
    nll = accumulate_gradients(model, batch, micro_batch, dtype)
    return float(nll.sum()) / max(1, valid_targets(batch).sum())


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5, 100])
def test_loss_and_gradients_are_means_over_the_valid_tokens_of_the_whole_step(micro_batch):
    batch, model, reference = random_batch(), fresh_model(), fresh_model()
    loss_of_step = mean_loss(model, batch, micro_batch, torch.float32)
    hidden = reference(
        torch.from_numpy(batch.input_ids),
        positions=torch.from_numpy(batch.positions),
        document_ids=torch.from_numpy(batch.document_ids),
    )
    loss = F.cross_entropy(reference.logits(hidden).flatten(0, 1), torch.from_numpy(batch.targets).flatten())
    loss.backward()
    assert loss_of_step == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-6, rtol=1e-3), name


def test_losses_by_domain_add_up_to_the_loss():
    batch = random_batch()
    nll = accumulate_gradients(fresh_model(), batch, 2, torch.float32)
    losses = loss_by_domain(batch, nll.tolist())
    assert tokens_by_domain(batch) == {"aa": 96, "bb": 32, "cc": 32}
    assert set(losses) == {"aa", "cc"}  # bb has no valid token in this step
    valid = {"aa": (batch.targets[[0, 2, 4]] >= 0).sum(), "cc": (batch.targets[3] >= 0).sum()}
    total = sum(losses[domain] * count for domain, count in valid.items())
    assert total == pytest.approx(float(nll.sum()))


def test_a_step_without_a_valid_token_has_no_loss_and_no_gradient():
    model = fresh_model()
    batch = random_batch(ignored=1.1)
    nll = accumulate_gradients(model, batch, 2, torch.float32)
    assert not nll.any() and loss_by_domain(batch, nll.tolist()) == {}
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_bfloat16_is_close_to_float32_and_keeps_gradients_in_float32():
    exact, rounded = fresh_model(), fresh_model()
    a = mean_loss(exact, random_batch(), 5, torch.float32)
    b = mean_loss(rounded, random_batch(), 5, torch.bfloat16)
    assert b == pytest.approx(a, rel=1e-2)
    assert all(parameter.grad.dtype == torch.float32 for parameter in rounded.parameters())


def test_schedules_fall_on_the_step_that_crosses_them():
    assert [tokens for tokens in range(100, 1001, 100) if _is_due(tokens, 100, 250)] == [300, 500, 800, 1000]
    assert not _is_due(100, 100, None)
    assert all(_is_due(tokens, 100, 30) for tokens in range(100, 1001, 100))
