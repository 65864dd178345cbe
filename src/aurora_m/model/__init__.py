"""One decoder, configured into the families. Configs come light; what needs torch loads on first use."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import ArchitectureConfig, BaseConfig, LoraConfig, ModelConfig

if TYPE_CHECKING:
    from .attention import KeyValueCache, mask_of_heads
    from .decoder import Decoder, count_parameters, resize_vocabulary
    from .fetch import fetch_base
    from .generation import generate
    from .lora import add_adapters
    from .loss import IGNORED, chunked_loss
    from .weights import load_model, load_weights, read_config, save_model


__all__ = [
    "IGNORED",
    "ArchitectureConfig",
    "BaseConfig",
    "Decoder",
    "KeyValueCache",
    "LoraConfig",
    "ModelConfig",
    "add_adapters",
    "chunked_loss",
    "count_parameters",
    "fetch_base",
    "generate",
    "load_model",
    "load_weights",
    "mask_of_heads",
    "read_config",
    "resize_vocabulary",
    "save_model",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "IGNORED": "loss",
        "Decoder": "decoder",
        "KeyValueCache": "attention",
        "add_adapters": "lora",
        "chunked_loss": "loss",
        "count_parameters": "decoder",
        "fetch_base": "fetch",
        "generate": "generation",
        "load_model": "weights",
        "load_weights": "weights",
        "mask_of_heads": "attention",
        "read_config": "weights",
        "resize_vocabulary": "decoder",
        "save_model": "weights",
    },
)
