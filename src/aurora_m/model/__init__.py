"""One decoder, configured into the families. Configs come light; what needs torch loads on first use."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import ArchitectureConfig, BaseConfig, LoraConfig, ModelConfig

if TYPE_CHECKING:
    from .attention import KeyValueCache, mask_of_heads
    from .averaging import average, check_mergeable, interpolate, same_weights
    from .decoder import Decoder, count_parameters, resize_vocabulary
    from .export import exported_parameters, save_model, write_model
    from .fetch import fetch_base
    from .flex_attention import prove_flex_attention
    from .generation import generate
    from .initial import generator_of, init_weights
    from .lora import adapted_layers, add_adapters, init_adapters, merge_adapter
    from .loss import IGNORED, chunked_loss, scaled_sum, token_factors
    from .vocabulary import write_with_new_rows
    from .weights import load_model, load_weights, read_config


__all__ = [
    "IGNORED",
    "ArchitectureConfig",
    "BaseConfig",
    "Decoder",
    "KeyValueCache",
    "LoraConfig",
    "ModelConfig",
    "adapted_layers",
    "add_adapters",
    "average",
    "check_mergeable",
    "chunked_loss",
    "count_parameters",
    "exported_parameters",
    "fetch_base",
    "generate",
    "generator_of",
    "init_adapters",
    "init_weights",
    "interpolate",
    "load_model",
    "load_weights",
    "mask_of_heads",
    "merge_adapter",
    "prove_flex_attention",
    "read_config",
    "resize_vocabulary",
    "same_weights",
    "save_model",
    "scaled_sum",
    "token_factors",
    "write_model",
    "write_with_new_rows",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "IGNORED": "loss",
        "Decoder": "decoder",
        "KeyValueCache": "attention",
        "adapted_layers": "lora",
        "add_adapters": "lora",
        "merge_adapter": "lora",
        "average": "averaging",
        "check_mergeable": "averaging",
        "interpolate": "averaging",
        "same_weights": "averaging",
        "chunked_loss": "loss",
        "scaled_sum": "loss",
        "token_factors": "loss",
        "count_parameters": "decoder",
        "exported_parameters": "export",
        "fetch_base": "fetch",
        "generate": "generation",
        "generator_of": "initial",
        "init_adapters": "lora",
        "init_weights": "initial",
        "load_model": "weights",
        "load_weights": "weights",
        "mask_of_heads": "attention",
        "prove_flex_attention": "flex_attention",
        "read_config": "weights",
        "resize_vocabulary": "decoder",
        "save_model": "export",
        "write_model": "export",
        "write_with_new_rows": "vocabulary",
    },
)
