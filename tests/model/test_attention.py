"""Attention stays inside a document and never looks ahead, packed or not, cached or not."""

import pytest
import torch

from aurora_m.model.attention import KeyValueCache, document_mask

FAMILIES = pytest.mark.parametrize(
    "values",
    [{}, {"kv_heads": 4}, {"family": "llama"}, {"family": "llama", "kv_heads": 2}, {"family": "llama", "kv_heads": 1}],
    ids=["bigcode-mqa", "bigcode-mha", "llama-mha", "llama-gqa", "llama-mqa"],
)


def packed(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Document numbers and positions (1, L) of documents packed one behind the other."""
    documents = torch.cat([torch.full((length,), number) for number, length in enumerate(lengths)])
    return documents.int().unsqueeze(0), torch.cat([torch.arange(length) for length in lengths]).int().unsqueeze(0)


def test_mask_allows_earlier_tokens_of_the_same_document_only():
    documents, _ = packed([2, 3])
    allowed = document_mask(documents, documents, 0, torch.float32)[0, 0] == 0
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert allowed.int().tolist() == expected
    assert torch.equal(document_mask(documents[:, 3:], documents, 3, torch.float32)[0, 0] == 0, allowed[3:])


@FAMILIES
@torch.no_grad()
def test_changing_one_document_leaves_the_others_as_they_were(our_model, tokens, values):
    model = our_model(**values)
    documents, positions = packed([20, 17, 9])
    ids = tokens(1, 46)
    changed = ids.clone()
    changed[:, :20] = tokens(1, 20, seed=9)
    before, after = (model(x, positions, documents) for x in (ids, changed))
    assert (before[:, 20:] - after[:, 20:]).abs().max() <= 1e-6
    assert (before[:, :20] - after[:, :20]).abs().max() > 1e-2


@FAMILIES
@torch.no_grad()
def test_packed_equals_unpacked(our_model, tokens, values):
    model = our_model(**values)
    documents, positions = packed([20, 17, 9])
    ids = tokens(1, 46)
    together = model(ids, positions, documents)
    apart = torch.cat([model(part) for part in ids.split([20, 17, 9], dim=1)], dim=1)
    assert (together - apart).abs().max() < 1e-5


@FAMILIES
def test_packed_gradients_equal_unpacked(our_model, tokens, values):
    model = our_model(**values)
    documents, positions = packed([20, 17, 9])
    ids, weight = tokens(1, 46), torch.randn(1, 46, 32, generator=torch.Generator().manual_seed(2))
    (model(ids, positions, documents) * weight).sum().backward()
    together = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    for part, part_weight in zip(ids.split([20, 17, 9], dim=1), weight.split([20, 17, 9], dim=1), strict=True):
        (model(part) * part_weight).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(together[name], parameter.grad, atol=1e-4, rtol=1e-4)


@FAMILIES
@torch.no_grad()
def test_one_document_takes_the_causal_path_with_the_same_result(our_model, tokens, values):
    model, ids = our_model(**values), tokens(2, 30)
    masked = model(ids, document_ids=torch.zeros(2, 30, dtype=torch.int32))
    assert (model(ids) - masked).abs().max() < 1e-5


@FAMILIES
@torch.no_grad()
def test_cached_steps_equal_one_pass(our_model, tokens, values):
    model, ids = our_model(**values), tokens(2, 30)
    cache = KeyValueCache(model.config, batch=2, capacity=30, dtype=torch.float32, device="cpu")
    steps = torch.cat([model(part, cache=cache) for part in ids.split([11, 1, 1, 7, 10], dim=1)], dim=1)
    assert cache.length == 30
    assert (steps - model(ids)).abs().max() < 1e-5


@torch.no_grad()
def test_cache_keeps_documents_apart(our_model, tokens):
    model, ids = our_model("llama"), tokens(1, 30)
    documents, positions = packed([12, 18])
    cache = KeyValueCache(model.config, batch=1, capacity=30, dtype=torch.float32, device="cpu")
    pieces = [(0, 10), (10, 15), (15, 16), (16, 30)]
    steps = [model(ids[:, a:b], positions[:, a:b], documents[:, a:b], cache) for a, b in pieces]
    assert (torch.cat(steps, dim=1) - model(ids, positions, documents)).abs().max() < 1e-5
