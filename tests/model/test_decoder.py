"""The decoder: deterministic from a seed, resizable, compilable, and clear about what it cannot do."""

import pytest
import torch

from aurora_m.model import Decoder, chunked_loss, count_parameters, resize_vocabulary
from aurora_m.workspace import AuroraError


def test_same_seed_same_weights_whatever_was_drawn_before(our_model, architecture):
    first, second, other = our_model(**architecture), our_model(**architecture), our_model(**architecture)
    first.init_weights(7)
    torch.rand(3)
    second.init_weights(7)
    other.init_weights(8)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.embed_tokens.weight, other.embed_tokens.weight)


def test_first_weights_of_a_tensor_do_not_depend_on_what_else_there_is(our_model):
    small, deep = our_model("llama"), our_model("llama", layers=5)
    for model in (small, deep):
        model.init_weights(7)
    assert torch.equal(small.layers[1].mlp.up.weight, deep.layers[1].mlp.up.weight)
    drawn = [parameter.flatten()[:8] for parameter in deep.parameters() if parameter.dim() > 1]
    assert len({tuple(values.tolist()) for values in drawn}) == len(drawn)


def test_initial_weights_are_those_of_gpt_2(our_model):
    model = our_model(hidden_size=256, layers=8)
    model.init_weights(0)
    layer = model.layers[3]
    assert model.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.mlp.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert layer.attention.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert not layer.mlp.up.bias.any() and (layer.mlp_norm.weight == 1).all()


def test_a_new_model_predicts_nothing_in_particular(our_model, tokens):
    model = our_model()
    model.init_weights(0)
    ids = tokens(2, 41)
    loss, _ = chunked_loss(model(ids[:, :-1]), model.head_weight, ids[:, 1:], scale=1 / 80)
    assert loss.item() == pytest.approx(torch.tensor(97.0).log().item(), abs=0.1)


@pytest.mark.parametrize(("family", "heads"), [("gpt_bigcode", 1), ("llama", 2)])
def test_parameters_are_counted_without_padding_and_ties_once(our_model, their_model, family, heads):
    plain, padded = our_model(family), our_model(family, vocab_rows=128)
    assert count_parameters(plain) == count_parameters(padded)
    assert sum(p.numel() for p in padded.parameters()) - count_parameters(padded) == heads * 31 * 32


def test_parameter_count_is_that_of_transformers(their_model, kind, tmp_path):
    from aurora_m.model import load_model

    theirs = their_model(kind)
    theirs.save_pretrained(tmp_path)
    assert count_parameters(load_model(tmp_path)) == theirs.num_parameters()


@pytest.mark.parametrize("family", ["gpt_bigcode", "llama"])
def test_resizing_the_vocabulary_keeps_what_is_there(our_model, tokens, family):
    model, ids = our_model(family), tokens(2, 20)
    before = model.logits(model(ids))
    resize_vocabulary(model, 100, rows=112)
    after = model.logits(model(ids))
    assert after.shape[-1] == model.config.vocab_size == 100
    assert torch.equal(after[..., :97], before)
    torch.testing.assert_close(model.embed_tokens.weight[98], model.embed_tokens.weight[:97].mean(dim=0))
    assert not model.embed_tokens.weight[100:].any()
    resize_vocabulary(model, 97)
    assert torch.equal(model.logits(model(ids)), before)
    with pytest.raises(ValueError, match="below vocab_size"):
        resize_vocabulary(model, 97, rows=64)


def test_padding_rows_get_no_gradient(our_model, tokens):
    model, ids = our_model(vocab_rows=128), tokens(2, 20)
    loss, _ = chunked_loss(model(ids), model.head_weight, ids)
    loss.backward()
    assert model.embed_tokens.weight.grad is not None
    assert not model.embed_tokens.weight.grad[97:].any()


def test_a_sequence_longer_than_the_positions_is_refused(our_model, tokens):
    with pytest.raises(AuroraError, match="65 tokens is longer than the model's 64 positions"):
        our_model()(tokens(1, 65))


def test_packed_sequences_may_be_longer_than_the_positions(our_model, tokens):
    documents = torch.arange(4).repeat_interleave(32).int().unsqueeze(0)
    positions = torch.arange(32).repeat(4).int().unsqueeze(0)
    assert our_model()(tokens(1, 128), positions, documents).shape == (1, 128, 32)


def test_a_padding_token_changes_nothing_before_it(our_model, tokens):
    model, ids = our_model("llama"), tokens(1, 20)
    longer = torch.cat([ids, torch.zeros(1, 5, dtype=torch.long)], dim=1)
    assert (model(ids) - model(longer)[:, :20]).abs().max() < 1e-5


def test_autocast_is_close_and_its_gradients_are_float32(our_model, tokens, architecture):
    model, ids = our_model(**architecture), tokens(2, 40)
    documents = torch.zeros(2, 40, dtype=torch.int32)
    exact, _ = chunked_loss(model(ids), model.head_weight, ids, scale=1 / ids.numel())
    for document_ids in (None, documents):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = chunked_loss(model(ids, document_ids=document_ids), model.head_weight, ids, scale=1 / ids.numel())
        loss.backward()
        assert loss.item() == pytest.approx(exact.item(), rel=0.02)
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt_bigcode", "llama", "bloom", "mistral", "olmo2"])
def test_the_whole_forward_compiles_into_one_graph(our_model, tokens, family):
    window = {"sliding_window": 7} if family == "mistral" else {}
    model, ids = our_model(family, **window), tokens(2, 40)
    torch.compiler.reset()  # or what the families before were compiled to would count against this one
    compiled = torch.compile(model, fullgraph=True)
    for documents in (None, torch.arange(2).repeat_interleave(20).int().expand(2, 40)):
        assert (compiled(ids, document_ids=documents) - model(ids, document_ids=documents)).abs().max() < 1e-4


def test_a_model_learns_a_repeating_text(our_model):
    model: Decoder = our_model()
    model.init_weights(0)
    ids = torch.arange(1, 9).repeat(4).unsqueeze(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss, _ = chunked_loss(model(ids[:, :-1]), model.head_weight, ids[:, 1:], scale=1 / 31)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
