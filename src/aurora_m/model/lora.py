"""LoRA (Hu et al. 2021): small trained matrices beside the frozen ones, merged into them on export.

An adapted matrix computes `weight @ x + alpha / rank * b @ a @ x`. `b` starts at zero: training starts from the base.
"""

import torch
from torch import Tensor, nn

from ..workspace import RecipeError
from .config import LoraConfig
from .decoder import Decoder
from .initial import copy_part, generator_of
from .linear import Linear, linear


class AdaptedLinear(Linear):
    """A linear layer whose weight and bias are frozen, with an adapter `lora_a` (rank, in), `lora_b` (out, rank)."""

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = config.alpha / config.rank
        device = base.weight.device
        self.lora_a = nn.Parameter(torch.empty(config.rank, base.in_features, device=device))
        self.lora_b = nn.Parameter(torch.empty(base.out_features, config.rank, device=device))

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        adapted = linear(linear(input, self.lora_a), self.lora_b)
        return linear(input, self.weight, self.bias) + self.scale * adapted

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """The plain matrix that computes the same, float32."""
        return merge_adapter(self.weight, self.lora_a, self.lora_b, self.scale)


def merge_adapter(weight: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float) -> Tensor:
    """The plain matrix (out, in) that computes what a matrix and its adapter do, float32."""
    return weight.float() + scale * (lora_b.float() @ lora_a.float())


def add_adapters(model: Decoder, config: LoraConfig, seed: int, dtype: torch.dtype = torch.float32) -> None:
    """Freezes a model and puts adapters beside the matrices of its layers, in place and before its optimizer is built.

    A model on the meta device gets its adapters' layout; `init_adapters` fills them when it has memory.

    Args:
        dtype: what matrix products run in. Frozen matrices of the layers are kept in it where that is seen to lose
            nothing, as with a bfloat16 checkpoint: the results are the same in less memory.

    Raises:
        RecipeError: a target that the model does not have.
    """
    model.requires_grad_(False)
    found: set[str] = set()
    for place, module in list(model.layers.named_modules()):
        if not isinstance(module, Linear):
            continue
        block, _, name = place.rpartition(".")
        found.add(name)
        if all(_loses_nothing(frozen, dtype) for frozen in module.parameters()):
            module.to(dtype)
        if config.targets is None or name in config.targets:
            setattr(model.layers.get_submodule(block), name, AdaptedLinear(module, config))
    if missing := [target for target in config.targets or [] if target not in found]:
        raise RecipeError(
            f"lora.targets: this {model.config.family} model has no {', '.join(missing)}; it has "
            f"{', '.join(sorted(found))}"
        )
    init_adapters(model, seed)


def _loses_nothing(tensor: Tensor, dtype: torch.dtype) -> bool:
    return not tensor.is_meta and torch.equal(tensor, tensor.to(dtype).to(tensor.dtype))


def init_adapters(model: nn.Module, seed: int) -> None:
    """Fills adapters, in whole or in shards: the first matrix uniform as PyTorch's linear layers, the second zero.

    As `init_weights`, they depend on the seed and the parameter's name alone.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta or ".lora_" not in name:
            continue
        first = torch.zeros(parameter.shape)
        if name.endswith("lora_a"):
            first.uniform_(-1, 1, generator=generator_of(seed, name)).mul_(parameter.shape[1] ** -0.5)
        copy_part(parameter, first)


def adapted_layers(model: nn.Module) -> dict[str, AdaptedLinear]:
    """The adapted layers of a model by the name of their weight."""
    return {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}
