"""LoRA (Hu et al. 2021): small trained matrices beside the frozen ones, merged into them on export.

An adapted matrix computes `weight @ x + alpha / rank * b @ a @ x`. `b` starts at zero: training starts from the base.
"""

import torch
from torch import Tensor, nn

from ..workspace import RecipeError
from .config import LoraConfig
from .decoder import Decoder
from .linear import Linear, linear


class AdaptedLinear(Linear):
    """A linear layer whose weight and bias are frozen, with an adapter `lora_a` (rank, in), `lora_b` (out, rank)."""

    def __init__(self, base: nn.Linear, config: LoraConfig, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = config.alpha / config.rank
        drawn = torch.empty(config.rank, base.in_features).uniform_(-1, 1, generator=generator)
        # Of the same deviation as PyTorch's own linear layers; drawn on the CPU, so alike on every device.
        device = base.weight.device
        self.lora_a = nn.Parameter((drawn * base.in_features**-0.5).to(device))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, config.rank, device=device))

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        adapted = linear(linear(input, self.lora_a), self.lora_b)
        return linear(input, self.weight, self.bias) + self.scale * adapted

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """The plain matrix that computes the same, float32."""
        return self.weight.float() + self.scale * (self.lora_b.float() @ self.lora_a.float())


def add_adapters(model: Decoder, config: LoraConfig, seed: int, dtype: torch.dtype = torch.float32) -> None:
    """Freezes a model and puts adapters beside the matrices of its layers, in place and before its optimizer is built.

    Args:
        dtype: what matrix products run in. Frozen matrices of the layers are kept in it where that loses nothing, as
            with a bfloat16 checkpoint: the results are the same in less memory.

    Raises:
        RecipeError: a target that the model does not have.
    """
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    found: set[str] = set()
    for place, module in list(model.layers.named_modules()):
        if not isinstance(module, Linear):
            continue
        block, _, name = place.rpartition(".")
        found.add(name)
        if all(torch.equal(frozen, frozen.to(dtype).to(frozen.dtype)) for frozen in module.parameters()):
            module.to(dtype)
        if config.targets is None or name in config.targets:
            setattr(model.layers.get_submodule(block), name, AdaptedLinear(module, config, generator))
    if missing := [target for target in config.targets or [] if target not in found]:
        raise RecipeError(
            f"lora.targets: this {model.config.family} model has no {', '.join(missing)}; it has "
            f"{', '.join(sorted(found))}"
        )


def adapted_layers(model: nn.Module) -> dict[str, AdaptedLinear]:
    """The adapted layers of a model by the name of their weight."""
    return {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}
