"""Attention stays inside a document and never looks ahead, packed or not, cached or not."""

import pytest
import torch

from aurora_m.model import ModelConfig
from aurora_m.model.attention import KeyValueCache, attention_mask
from aurora_m.model.positions import alibi_slopes


def packed(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Document numbers and positions (1, L) of documents packed one behind the other."""
    documents = torch.cat([torch.full((length,), number) for number, length in enumerate(lengths)])
    return documents.int().unsqueeze(0), torch.cat([torch.arange(length) for length in lengths]).int().unsqueeze(0)


def mask_of(config: ModelConfig, documents: torch.Tensor, start: int = 0) -> torch.Tensor:
    """The additive mask (B, heads or 1, Q, K) of queries from `start` on."""
    length = documents.size(1) - start
    mask = attention_mask(
        config, config.window(0), length, documents[:, start:], documents, torch.float32, documents.device, start
    )
    assert mask is not None
    return mask


def test_mask_allows_earlier_tokens_of_the_same_document_only(our_model):
    documents, _ = packed([2, 3])
    config = our_model("llama").config
    allowed = mask_of(config, documents)[0, 0] == 0
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert allowed.int().tolist() == expected
    assert torch.equal(mask_of(config, documents, 3)[0, 0] == 0, allowed[3:])


def test_a_window_counts_the_token_itself(our_model):
    documents, _ = packed([2, 4])
    allowed = mask_of(our_model("mistral", sliding_window=2).config, documents)[0, 0] == 0
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert allowed.int().tolist() == expected


def test_a_row_no_longer_than_the_window_takes_the_causal_path(our_model):
    config = our_model("mistral", sliding_window=5).config
    arguments = (None, None, torch.float32, torch.device("cpu"))
    assert attention_mask(config, 5, 5, *arguments) is None
    assert attention_mask(config, 5, 6, *arguments) is not None


def test_alibi_lowers_scores_by_distance_inside_a_document(our_model):
    documents, _ = packed([2, 3])
    mask = mask_of(our_model("bloom").config, documents)
    slopes = [0.25, 0.0625, 0.015625, 0.00390625]
    assert mask.shape == (1, 4, 5, 5)
    for head, slope in enumerate(slopes):
        assert mask[0, head, 4].tolist() == [-torch.inf, -torch.inf, -2 * slope, -slope, 0.0]


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 112])
def test_alibi_slopes_are_those_of_transformers(heads):
    from transformers.models.bloom.modeling_bloom import _get_alibi_slopes

    expected = _get_alibi_slopes(heads, torch.device("cpu"))
    torch.testing.assert_close(torch.tensor(alibi_slopes(heads)), expected)


@torch.no_grad()
def test_changing_one_document_leaves_the_others_as_they_were(our_model, tokens, architecture):
    model = our_model(**architecture)
    documents, positions = packed([20, 17, 9])
    ids = tokens(1, 46)
    changed = ids.clone()
    changed[:, :20] = tokens(1, 20, seed=9)
    before, after = (model(x, positions, documents) for x in (ids, changed))
    assert (before[:, 20:] - after[:, 20:]).abs().max() <= 1e-6
    assert (before[:, :20] - after[:, :20]).abs().max() > 1e-2


@torch.no_grad()
def test_packed_equals_unpacked(our_model, tokens, architecture):
    model = our_model(**architecture)
    documents, positions = packed([20, 17, 9])
    ids = tokens(1, 46)
    together = model(ids, positions, documents)
    apart = torch.cat([model(part) for part in ids.split([20, 17, 9], dim=1)], dim=1)
    assert (together - apart).abs().max() < 1e-5


def test_packed_gradients_equal_unpacked(our_model, tokens, architecture):
    model = our_model(**architecture)
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


@torch.no_grad()
def test_one_document_takes_the_causal_path_with_the_same_result(our_model, tokens, architecture):
    model, ids = our_model(**architecture), tokens(2, 30)
    masked = model(ids, document_ids=torch.zeros(2, 30, dtype=torch.int32))
    assert (model(ids) - masked).abs().max() < 1e-5


@torch.no_grad()
def test_cached_steps_equal_one_pass(our_model, tokens, architecture):
    model, ids = our_model(**architecture), tokens(2, 30)
    cache = KeyValueCache(model.config, batch=2, capacity=30, dtype=torch.float32, device="cpu")
    steps = torch.cat([model(part, cache=cache) for part in ids.split([11, 1, 1, 7, 10], dim=1)], dim=1)
    assert cache.length == 30
    assert (steps - model(ids)).abs().max() < 1e-5


@torch.no_grad()
def test_cache_keeps_documents_apart(our_model, tokens, architecture):
    model, ids = our_model(**architecture), tokens(1, 30)
    documents, positions = packed([12, 18])
    cache = KeyValueCache(model.config, batch=1, capacity=30, dtype=torch.float32, device="cpu")
    pieces = [(0, 10), (10, 15), (15, 16), (16, 30)]
    steps = [model(ids[:, a:b], positions[:, a:b], documents[:, a:b], cache) for a, b in pieces]
    assert (torch.cat(steps, dim=1) - model(ids, positions, documents)).abs().max() < 1e-5
