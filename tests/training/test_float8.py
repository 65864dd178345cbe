"""Float8 products, emulated: this machine has none."""

import pytest
import torch
from tests.heard import Heard
from tests.training.synthetic import tiny_config

from aurora_m.model import ArchitectureConfig, Decoder, chunked_loss
from aurora_m.training import float8
from aurora_m.training.float8 import check_float8, multiply_in_float8
from aurora_m.training.ranks import SINGLE
from aurora_m.training.stage import choose_attention, place_model
from aurora_m.workspace import RecipeError

CPU = torch.device("cpu")


def model_of(**changes) -> Decoder:
    values = {"family": "llama", "layers": 2, "hidden_size": 64, "heads": 4, "max_positions": 64} | changes
    model = Decoder(ArchitectureConfig(**values).model_config_for(96))
    model.init_weights(0)
    return model


def gradients(model: Decoder) -> tuple[float, dict[str, torch.Tensor]]:
    ids = torch.randint(0, 96, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = chunked_loss(model(ids), model.head_weight, ids.roll(-1, 1), 1 / ids.numel())
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scaling", ["tensorwise", "rowwise"])
def test_layers_multiply_in_float8_and_train_alike(scaling):
    pytest.importorskip("torchao")
    plain, rounded = model_of(), model_of()
    names = [name for name, _ in rounded.named_parameters()]
    assert multiply_in_float8(rounded, scaling, emulate=True) == 2 * 7  # q, k, v, out, gate, up, down
    assert [name for name, _ in rounded.named_parameters()] == names
    loss, own = gradients(rounded)
    other_loss, other = gradients(plain)
    assert loss != other_loss and abs(loss - other_loss) < 0.02
    for name in names:
        assert own[name].dtype == torch.float32
        cosine = torch.nn.functional.cosine_similarity(own[name].flatten(), other[name].flatten(), dim=0)
        assert cosine > 0.97, name


@pytest.mark.filterwarnings("ignore")
def test_sizes_its_kernels_do_not_take_stay_as_they_are():
    pytest.importorskip("torchao")
    model = model_of(hidden_size=64, ffn_size=100)
    assert multiply_in_float8(model, "tensorwise", emulate=True) == 2 * 4  # attention's


def test_it_is_refused_where_it_cannot_be_had(monkeypatch):
    with pytest.raises(RecipeError, match="not a CPU"):
        check_float8(CPU)
    monkeypatch.setattr(float8.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install 'aurora-m\[float8\]'"):
        check_float8(CPU)


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"parallel": {"tensor": 2}}, torch.bfloat16),
        ({"lora": {"rank": 2, "alpha": 4}}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_what_it_does_not_go_with_is_refused(changes, dtype):
    config = tiny_config(float8="tensorwise", **changes)
    with pytest.raises(RecipeError, match=r"train\.float8 goes with precision bfloat16"):
        place_model(model_of(), config, CPU, SINGLE, None, dtype, 0)


def test_where_flex_attention_fails_dense_attention_is_chosen_and_said():
    """A CPU has no gradients of it, which is a real failure of the proof."""
    heard = Heard()
    assert choose_attention(model_of().config, tiny_config(), CPU, torch.float32, heard) == "auto"
    assert "FlexAttention does not work here" in heard.lines[0] and "dense masks" in heard.lines[0]


def test_compiled_layer_by_layer_it_is_the_same_model():
    config = tiny_config(compile=True)
    compiled = place_model(model_of(), config, CPU, SINGLE, None, torch.float32, 0)
    ids = torch.randint(0, 96, (2, 64), generator=torch.Generator().manual_seed(0))
    documents = torch.arange(64).div(20, rounding_mode="floor").int().expand(2, -1)
    results = []
    for model in (compiled, model_of()):
        hidden = model(ids, document_ids=documents)
        hidden.square().mean().backward()
        results.append(
            [hidden.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]
        )
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(*results, strict=True))
