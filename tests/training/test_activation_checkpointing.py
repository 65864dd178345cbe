"""Keeping less between forward and backward pass changes memory and no bit of the result."""

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from aurora_m.model import ArchitectureConfig, Decoder, save_model
from aurora_m.training.activation_checkpointing import checkpoint_activations
from aurora_m.training.device import activation_bytes, auto_micro_batch
from aurora_m.training.parallel_loss import decoder_loss

MODES = ("none", "selective", "full")
LENGTH, ROWS, VOCABULARY = 64, 4, 301


def make_model(mode, family="llama", **changes) -> Decoder:
    sizes = {"layers": 6, "hidden_size": 64, "heads": 4, "max_positions": 64} | changes
    model = Decoder(ArchitectureConfig(family=family, **sizes).model_config_for(VOCABULARY))
    model.init_weights(0)
    checkpoint_activations(model.layers, mode)
    return model


def forward(model: Decoder, dtype: torch.dtype) -> torch.Tensor:
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    documents = (torch.arange(LENGTH) > 20).int().expand(ROWS, -1)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return decoder_loss(model, model(ids, document_ids=documents), ids, 0.01)[0]


def gradients(model: Decoder, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Of each parameter; and the loss."""
    loss = forward(model, dtype)
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return found | {"loss": loss.detach()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt_bigcode", "bloom", "qwen3", "olmo2"])
def test_losses_and_gradients_are_the_same_bit_for_bit(family, dtype):
    expected, *others = (gradients(make_model(mode, family, layers=2), dtype) for mode in MODES)
    for found in others:
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def memory(mode, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes kept between forward and backward pass, and the peak of both."""
    model, tracker, device = make_model(mode), MemTracker(), torch.device("cpu")
    with tracker:
        loss = forward(model, dtype)
        kept = tracker.get_tracker_snapshot("current")[device]["Total"]
        loss.backward()
    return kept, tracker.get_tracker_snapshot("peak")[device]["Total"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_mode_takes_less_memory_than_the_one_before(dtype):
    kept, peaks = zip(*(memory(mode, dtype) for mode in MODES), strict=True)
    assert kept[1] < 0.75 * kept[0] and kept[2] < 0.6 * kept[1]
    assert peaks[1] < 0.85 * peaks[0] and peaks[2] < 0.7 * peaks[1]


@pytest.mark.parametrize("mode", MODES)
def test_the_estimate_for_micro_batches_is_what_is_kept(mode):
    model = make_model(mode)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    found = memory(mode, torch.float32)[1] - 2 * weights
    assert found == pytest.approx(activation_bytes(model.config, 4, mode) * ROWS * LENGTH, rel=0.3)


def test_more_sequences_fit_at_once():
    config = ArchitectureConfig(layers=24, hidden_size=512, heads=8).model_config_for(VOCABULARY)
    parts = [auto_micro_batch(config, 64, 256, torch.device("cpu"), torch.float32, mode) for mode in MODES]
    assert parts[0] < parts[1] < parts[2]


def test_names_and_scores_without_gradients_are_untouched(tmp_path):
    plain, full = make_model("none"), make_model("full")
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in full.named_parameters()]
    assert plain.state_dict().keys() == full.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(forward(plain, torch.float32), forward(full, torch.float32))
    save_model(full, tmp_path)


def test_layers_compile_with_it():
    expected = gradients(make_model("none", layers=1), torch.float32)
    model = make_model("selective", layers=1)
    for layer in model.layers:
        layer.compile()
    found = gradients(model, torch.float32)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name
