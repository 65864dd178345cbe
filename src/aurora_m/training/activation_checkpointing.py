"""What layers keep from forward to backward pass; the rest is computed a second time (Chen et al. 2016).

none        everything
selective   a layer's input, and what its matrix products and its attention return: the cheap rest is recomputed
full        a layer's input alone: the whole layer is recomputed
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from .config import ActivationCheckpointing


def checkpoint_activations(layers: Iterable[nn.Module], mode: ActivationCheckpointing) -> None:
    """Lets layers keep less between forward and backward pass, in place; results and parameter names stay.

    It takes the place of each layer's `forward`: inside what compiles or shards the layer, so call it before these.
    Passes without gradients run as they would.
    """
    if mode == "none":
        return
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # nothing random is in a layer
    if mode == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for layer in layers:
        layer.forward = _Checkpointed(layer.forward, settings)  # type: ignore[method-assign, assignment]


class _Checkpointed:
    def __init__(self, forward: Any, settings: dict[str, Any]) -> None:
        self.forward, self.settings = forward, settings

    def __call__(self, *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*inputs)
        return checkpoint(self.forward, *inputs, **self.settings)


_KEPT = {
    "aten::mm",
    "aten::addmm",
    "aten::_scaled_mm",
    "mkldnn::_linear_pointwise",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_flash_attention_forward",
    "aten::_efficient_attention_forward",
    "aurora_m::run_attention",
    "flex_attention",
    "inductor_compiled_code",  # in a layer that is not compiled itself: FlexAttention, which always is
}


def _policy(context: Any, operator: Any, *inputs: Any, **settings: Any) -> CheckpointPolicy:
    """What `selective` does with an operator's results."""
    return CheckpointPolicy.MUST_SAVE if operator.name() in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
