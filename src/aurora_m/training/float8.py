"""Matrix products of the layers in float8, by torchao; weights, gradients and the optimizer stay as they are."""

import importlib.util
from typing import Literal

import torch
from torch import nn

from aurora_m.model import Decoder
from aurora_m.workspace import RecipeError

Float8 = Literal["tensorwise", "rowwise"]
_FIRST_CAPABILITY = (8, 9)  # Ada; Hopper is 9.0
_MULTIPLE = 16  # what the products' kernels take


def check_float8(device: torch.device) -> None:
    """Checks that float8 products can be had here.

    Raises:
        RecipeError: torchao is not installed, or the device has no such products.
    """
    if importlib.util.find_spec("torchao") is None:
        raise RecipeError("train.float8 needs torchao: pip install 'aurora-m[float8]', or leave it out")
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _FIRST_CAPABILITY:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        raise RecipeError(f"train.float8 needs a GPU that multiplies float8 (Ada, Hopper or later), not {name}")


def multiply_in_float8(model: Decoder, scaling: Float8, *, emulate: bool = False) -> int:
    """Has the layers' linear maps multiply in float8, in place, and returns how many do; names stay.

    Both factors of every product, forward and backward, are scaled to float8's range by the highest number of each
    tensor (`tensorwise`) or row (`rowwise`: slower, closer). The head and maps whose sizes are no multiples of 16 stay
    in bfloat16. `emulate` rounds alike and multiplies in float32, on any device.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    chosen: list[str] = []

    def wanted(module: nn.Module, name: str) -> bool:
        fits = isinstance(module, nn.Linear) and not (module.in_features % _MULTIPLE or module.out_features % _MULTIPLE)
        if fits and name.startswith("layers."):
            chosen.append(name)
            return True
        return False

    config = Float8LinearConfig.from_recipe_name(scaling)
    if emulate:
        object.__setattr__(config, "emulate", True)
    convert_to_float8_training(model, module_filter_fn=wanted, config=config)
    return len(chosen)
