"""Adapters: they start as the base, only they are trained, and merged they are a plain model of the same outputs."""

import copy
from typing import Any

import pytest
import torch
import transformers

from aurora_m.model import LoraConfig, add_adapters, chunked_loss, count_parameters, load_model, save_model
from aurora_m.model.lora import adapted_layers
from aurora_m.workspace import RecipeError

RANK_4 = LoraConfig(rank=4, alpha=8)


def train_a_little(model: torch.nn.Module, ids: torch.Tensor, steps: int = 5) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss, _ = chunked_loss(model(ids[:, :-1]), model.head_weight, ids[:, 1:], scale=1 / ids[:, 1:].numel())
        loss.backward()
        optimizer.step()


def test_an_untrained_adapter_changes_nothing(our_model, tokens, architecture):
    model, ids = our_model(**architecture), tokens(2, 20)
    before, parameters = model(ids), count_parameters(model)
    add_adapters(model, RANK_4, seed=0)
    assert torch.equal(model(ids), before)
    assert count_parameters(model) == parameters


@torch.no_grad()
def test_the_merged_model_is_plain_and_has_the_adapted_outputs(our_model, tokens, architecture, tmp_path):
    model, ids = our_model(**architecture), tokens(2, 20)
    base = model(ids)
    add_adapters(model, RANK_4, seed=0)
    for layer in adapted_layers(model).values():
        layer.lora_b.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
    save_model(model, tmp_path)
    expected = model.logits(model(ids))
    merged = load_model(tmp_path)
    assert (model(ids) - base).abs().max() > 1e-2
    assert (merged.logits(merged(ids)) - expected).abs().max() < 1e-4
    load: Any = transformers.AutoModelForCausalLM.from_pretrained
    theirs, report = load(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (theirs(ids).logits - expected).abs().max() < 1e-4


def test_only_adapters_are_trained(our_model, tokens):
    model, ids = our_model("llama"), tokens(2, 21)
    add_adapters(model, LoraConfig(rank=4, alpha=8, targets=["q", "v", "down"]), seed=0)
    before = copy.deepcopy(model.state_dict())
    train_a_little(model, ids)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    targets = ("attention.q", "attention.v", "mlp.down")
    assert changed == {
        f"layers.{layer}.{target}.lora_{part}" for layer in range(2) for target in targets for part in "ab"
    }


def test_training_adapters_of_full_rank_is_training(our_model, tokens):
    """The gradient of the adapter is that of the merged weight, taken through the product of its two matrices."""
    model, ids = our_model("llama"), tokens(2, 21)
    plain = copy.deepcopy(model)
    add_adapters(model, LoraConfig(rank=4, alpha=8, targets=["up"]), seed=0)
    for each in (plain, model):
        loss, _ = chunked_loss(each(ids[:, :-1]), each.head_weight, ids[:, 1:])
        loss.backward()
    adapted, whole = model.layers[0].mlp.up, plain.layers[0].mlp.up.weight.grad
    expected = adapted.scale * whole @ adapted.lora_a.T
    torch.testing.assert_close(adapted.lora_b.grad, expected, atol=1e-4, rtol=1e-4)
    assert not adapted.lora_a.grad.any()  # lora_b is still zero


def test_frozen_matrices_may_be_kept_in_the_dtype_of_products(our_model, tokens):
    ids, outputs = tokens(2, 20), []
    for dtype in (torch.float32, torch.bfloat16):
        model = our_model("qwen2").bfloat16().float()  # a checkpoint stored in bfloat16
        model.layers[1].mlp.up.weight.data[0, 0] = 1 / 3
        add_adapters(model, RANK_4, seed=0, dtype=dtype)
        assert model.layers[0].mlp.up.weight.dtype == dtype
        assert model.layers[1].mlp.up.weight.dtype == torch.float32
        assert model.layers[0].mlp.up.lora_a.dtype == model.embed_tokens.weight.dtype == torch.float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs.append(model(ids))
    assert torch.equal(*outputs)


def test_adapters_are_drawn_alike_from_the_same_seed(our_model):
    first, second, other = our_model("llama"), our_model("llama"), our_model("llama")
    for model, seed in ((first, 3), (second, 3), (other, 4)):
        add_adapters(model, RANK_4, seed=seed)
    assert torch.equal(first.layers[1].mlp.up.lora_a, second.layers[1].mlp.up.lora_a)
    assert not torch.equal(first.layers[1].mlp.up.lora_a, other.layers[1].mlp.up.lora_a)


def test_a_target_the_model_does_not_have_is_refused(our_model):
    with pytest.raises(RecipeError, match="this gpt_bigcode model has no gate; it has down, k, out, q, up, v"):
        add_adapters(our_model(), LoraConfig(rank=4, alpha=8, targets=["gate", "up"]), seed=0)
