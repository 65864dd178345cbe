"""Matrix products in float32 on CPUs through oneDNN, which PyTorch itself asks only for bfloat16.

PyTorch sends float32 products to MKL, which on AMD processors keeps to AVX2: on one core of an AVX-512 EPYC 90 GFLOP/s,
where oneDNN gives 200 (4096 x 256 by 256 x 1024: 23 ms and 10 ms, and the same for both gradients).
Everything that is not plain float32 on a CPU takes PyTorch's own path.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _find_onednn() -> Any:
    """The operator of oneDNN's linear layer, or None in a build of PyTorch without it."""
    try:
        return torch.ops.mkldnn._linear_pointwise.default if torch.backends.mkldnn.is_available() else None
    except AttributeError:
        return None


_ONEDNN_LINEAR = _find_onednn()


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `x @ weight.T` should go through oneDNN."""
    return (
        _ONEDNN_LINEAR is not None
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        # A sharded weight (DTensor) or a wrapped one knows only PyTorch's operators.
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and x.numel() > 0
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` for x (N, in), weight (out, in), which may be a transposed view. Unseen by autograd."""
    if uses_onednn(x, weight):
        return _ONEDNN_LINEAR(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def weight_gradient(d_y: Tensor, x: Tensor) -> Tensor:
    """`d_y.T @ x` (out, in) for d_y (N, out), x (N, in); a transposed view where out > in.

    oneDNN copies its first factor to turn it, so the narrower one goes first.
    """
    if d_y.size(1) > x.size(1):
        return product(x.T, d_y.T).T
    return product(d_y.T, x.T)


class _OnednnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.size(-1))
        ctx.save_for_backward(rows, weight)
        return product(rows, weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        d_y = grad_outputs[0].reshape(-1, weight.size(0)).contiguous()
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        d_x = product(d_y, weight.T).view(*grad_outputs[0].shape[:-1], -1) if wants_x else None
        d_weight = weight_gradient(d_y, rows) if wants_weight else None
        return d_x, d_weight, d_y.sum(dim=0) if wants_bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What F.linear does, by the faster library: (..., in) to (..., out)."""
    if uses_onednn(x, weight):
        return _OnednnLinear.apply(x, weight, bias)  # type: ignore[return-value]
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """nn.Linear, by the faster library."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(input, self.weight, self.bias)
