"""The chunked loss is cross-entropy: the same values and gradients, whatever the chunks, in less memory."""

import resource
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.model import IGNORED, chunked_loss
from aurora_m.model.loss import _chunks


def make_inputs(batch: int, length: int, width: int, vocabulary: int, ignored: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(batch, length, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator)
    targets = torch.randint(0, vocabulary, (batch, length), generator=generator)
    targets[torch.rand(batch, length, generator=generator) < ignored] = IGNORED
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def reference(hidden, weight, targets, scale):
    nll = F.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED)
    return scale * nll.sum(), nll.view(targets.shape)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 17),
    width=st.integers(1, 9),
    vocabulary=st.integers(2, 40),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    chunk_tokens=st.integers(1, 60),
    scale=st.sampled_from([1.0, 1 / 64, 3.0]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_cross_entropy(
    batch, length, width, vocabulary, ignored, chunk_tokens, scale, seed
):
    hidden, weight, targets = make_inputs(batch, length, width, vocabulary, ignored, seed)
    loss, nll = chunked_loss(hidden, weight, targets, scale, chunk_tokens)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    expected, expected_nll = reference(hidden, weight, targets, scale)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nll, expected_nll.detach(), rtol=1e-5, atol=1e-5)
    for got, wanted in zip(gradients, torch.autograd.grad(expected, (hidden, weight)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5 * max(1.0, wanted.abs().max().item()))


@pytest.mark.parametrize("chunk_tokens", [3, 1024])
def test_sequences_may_have_factors_of_their_own(chunk_tokens):
    hidden, weight, targets = make_inputs(3, 7, 5, 11, 0.3, seed=2)
    scale = torch.tensor([0.5, 0.0, 2.0])
    loss, nll = chunked_loss(hidden, weight, targets, scale, chunk_tokens)
    _, expected_nll = reference(hidden, weight, targets, 1.0)
    expected = (scale * expected_nll.sum(dim=1)).sum()
    torch.testing.assert_close(nll, expected_nll.detach())  # of a sequence without weight too
    torch.testing.assert_close(loss, expected)
    gradients = (torch.autograd.grad(one, (hidden, weight)) for one in (loss, expected))
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[[1e4, 0.0], [-1e4, 0.0]]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss, nll = chunked_loss(hidden, weight, torch.tensor([[1, 1]]))
    loss.backward()
    assert nll.tolist() == [[20000.0, 0.0]]
    assert hidden.grad is not None and hidden.grad.isfinite().all()


def test_ignored_targets_have_no_loss_and_no_gradient():
    hidden, weight, targets = make_inputs(2, 8, 4, 11, 0.5, seed=1)
    loss, nll = chunked_loss(hidden, weight, targets)
    loss.backward()
    assert not nll[targets == IGNORED].any() and (nll[targets != IGNORED] > 0).all()
    assert hidden.grad is not None and not hidden.grad[targets == IGNORED].any()


@pytest.mark.parametrize("valid", [1, 63, 64, 65, 250, 255])
def test_chunks_of_partly_ignored_targets_come_in_few_shapes(valid):
    targets = torch.full((256,), IGNORED)
    targets[torch.randperm(256)[:valid]] = 1
    chunks = _chunks(targets, 128)
    rows = torch.cat(chunks)
    assert len(rows) % 64 == 0 and len(rows.unique()) == len(rows) < valid + 64
    assert (targets[rows] != IGNORED).sum() == valid


def test_upstream_gradient_scales_both_gradients():
    hidden, weight, targets = make_inputs(1, 8, 4, 11, 0.0, seed=1)
    once = torch.autograd.grad(chunked_loss(hidden, weight, targets)[0], (hidden, weight))
    thrice = torch.autograd.grad(3 * chunked_loss(hidden, weight, targets)[0], (hidden, weight))
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * a, b)


def test_only_the_wanted_gradient_is_computed():
    hidden, weight, targets = make_inputs(1, 8, 4, 11, 0.0, seed=1)
    (both,) = torch.autograd.grad(chunked_loss(hidden, weight, targets)[0], (weight,))
    (alone,) = torch.autograd.grad(chunked_loss(hidden.detach(), weight, targets)[0], (weight,))
    assert torch.equal(both, alone)


def test_no_gradient_work_under_no_grad():
    hidden, weight, targets = make_inputs(1, 8, 4, 11, 0.3, seed=1)
    with torch.no_grad():
        loss, nll = chunked_loss(hidden, weight, targets)
    assert not loss.requires_grad and not nll.requires_grad
    torch.testing.assert_close(loss, chunked_loss(hidden, weight, targets)[0].detach())


def test_token_losses_are_detached():
    hidden, weight, targets = make_inputs(1, 8, 4, 11, 0.0, seed=1)
    loss, nll = chunked_loss(hidden, weight, targets)
    assert loss.requires_grad and not nll.requires_grad and nll.dtype == torch.float32


def test_a_second_backward_is_refused_instead_of_wrong():
    loss, _ = chunked_loss(*make_inputs(1, 8, 4, 11, 0.0, seed=1))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_tied_embedding_gets_gradient_from_both_uses():
    _, weight, targets = make_inputs(2, 8, 4, 11, 0.0, seed=1)
    ids = targets.roll(1, dims=1)
    (got,) = torch.autograd.grad(chunked_loss(F.embedding(ids, weight), weight, targets)[0], weight)
    (wanted,) = torch.autograd.grad(reference(F.embedding(ids, weight), weight, targets, 1.0)[0], weight)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_autocast_computes_logits_in_bfloat16_and_softmax_in_float32():
    hidden, weight, targets = make_inputs(2, 40, 16, 50, 0.2, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, nll = chunked_loss(hidden, weight, targets, chunk_tokens=16)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    logits = (hidden.bfloat16() @ weight.bfloat16().T).float().flatten(0, 1)
    expected = F.cross_entropy(logits, targets.flatten(), reduction="none", ignore_index=IGNORED)
    torch.testing.assert_close(nll.flatten(), expected.detach(), rtol=1e-5, atol=1e-5)
    exact = torch.autograd.grad(reference(hidden, weight, targets, 1.0)[0], (hidden, weight))
    for got, wanted in zip(gradients, exact, strict=True):
        assert got.dtype == torch.float32
        assert (got - wanted).abs().max() < 0.03 * wanted.abs().max()


def test_bfloat16_weights_get_bfloat16_gradients():
    hidden, weight, targets = make_inputs(1, 8, 4, 11, 0.0, seed=1)
    hidden, weight = (x.detach().bfloat16().requires_grad_() for x in (hidden, weight))
    chunked_loss(hidden, weight, targets)[0].backward()
    assert hidden.grad is not None and weight.grad is not None
    assert hidden.grad.dtype == weight.grad.dtype == torch.bfloat16


MEMORY_SCRIPT = """
import resource, torch
from aurora_m.model import chunked_loss
torch.set_num_threads(1)
hidden = torch.zeros(8, 1024, 16, requires_grad=True)
weight = torch.zeros(32768, 16, requires_grad=True)
targets = torch.zeros(8, 1024, dtype=torch.long)
chunked_loss(hidden[:1, :64], weight, targets[:1, :64])[0].backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
chunked_loss(hidden, weight, targets)[0].backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_memory_does_not_grow_with_tokens_times_vocabulary():
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
    grown = subprocess.run([sys.executable, "-c", MEMORY_SCRIPT], capture_output=True, text=True, check=True)
    # All logits at once would be 8192 x 32768 float32 = 1 GiB.
    assert int(grown.stdout) < 100 * 1024
