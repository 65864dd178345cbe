"""The families' maps: which key of config.json is which field of ModelConfig, which tensor of a checkpoint is which
parameter of ours. `hf_config` and `weights` read them in both directions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .config import ModelConfig


@dataclass(frozen=True)
class TensorMap:
    """One tensor of a checkpoint: our parameters `parts`, stacked by rows within each of `groups` equal groups."""

    name: str
    parts: tuple[str, ...]
    groups: int = 1

    def join(self, tensors: list[Tensor]) -> Tensor:
        """Our parameters as the checkpoint's tensor."""
        if len(tensors) == 1:
            return tensors[0]
        return torch.cat([self.grouped(tensor) for tensor in tensors], dim=1).flatten(0, 1)

    def split(self, tensor: Tensor, rows: list[int]) -> list[Tensor]:
        """The checkpoint's tensor as views (groups, rows / groups, ...) of our parameters, which have `rows` rows."""
        return list(self.grouped(tensor).split([count // self.groups for count in rows], dim=1))

    def grouped(self, tensor: Tensor) -> Tensor:
        """(rows, ...) as (groups, rows / groups, ...)."""
        return tensor.unflatten(0, (self.groups, -1))


Names = dict[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Family:
    """How Hugging Face stores one family.

    `sizes` and `options` give the key of config.json of each field of ModelConfig; an option may be missing there, and
    stands with what transformers then takes. `read` and `write` do what is not one key for one field, reading
    `other_keys`. `fixed` lists keys accepted at these values only, `inert` keys that change nothing in this family.

    Modules of the checkpoint are listed with ours: those of the stream's ends, and those of each layer, whose names
    begin with `layer` and its number; all but the head's begin with `body`, which checkpoints of a headless model
    leave out. A tuple is fused: its parts' rows alternate, by key head.
    """

    architecture: str
    sizes: dict[str, str]
    options: dict[str, tuple[str, Any]]
    body: str
    first: Names
    layer: str
    in_layer: Names
    last: Names
    other_keys: frozenset[str] = frozenset()
    aliases: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    inert: frozenset[str] = frozenset()
    read: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: {}
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}


def tensor_maps(config: ModelConfig) -> list[TensorMap]:
    """Every tensor of a checkpoint of this model, in file order."""
    family = FAMILIES[config.family]
    modules = [(family.body + theirs, ours, "") for theirs, ours in family.first.items()]
    for index in range(config.layers):
        modules += [
            (f"{family.body}{family.layer}.{index}.{theirs}", ours, f"layers.{index}.")
            for theirs, ours in family.in_layer.items()
        ]
    modules += [(family.body + theirs, ours, "") for theirs, ours in family.last.items()]
    if not config.tied_embeddings:
        modules.append(("lm_head", "head", ""))
    maps = []
    for theirs, ours, place in modules:
        parts = (ours,) if isinstance(ours, str) else ours
        kinds = ("weight", "bias") if _has_bias(config, parts[0]) else ("weight",)
        # Fused projections alternate by key head: with a single one, all queries, then the key, then the value.
        groups = config.kv_heads if len(parts) > 1 else 1
        for kind in kinds:
            maps.append(TensorMap(f"{theirs}.{kind}", tuple(f"{place}{part}.{kind}" for part in parts), groups))
    return maps


def _has_bias(config: ModelConfig, module: str) -> bool:
    if module in ("attention_norm", "mlp_norm", "embed_norm", "final_norm"):
        return config.norm == "layernorm"
    by_matrix = {"attention.q": config.qkv_bias, "attention.k": config.qkv_bias, "attention.v": config.qkv_bias}
    by_matrix["attention.out"] = config.out_bias
    return by_matrix.get(module, config.mlp_bias and module.startswith("mlp."))


def checkpoint_names(config: ModelConfig, stored: list[str]) -> dict[str, str]:
    """The names of a checkpoint's tensors as those of the whole model, by their names in the file."""
    body = FAMILIES[config.family].body
    if any(name.startswith(body) for name in stored):
        return {name: name for name in stored}
    return {name: name if name.startswith("lm_head.") else body + name for name in stored}


def is_inert_tensor(name: str) -> bool:
    """Whether a tensor is a constant that old versions of transformers stored: a causal mask, rotary frequencies."""
    return name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"))


# ---- GPTBigCode and BLOOM: names of GPT-2 and of Megatron-LM

# These switches choose where float32 is used; our softmax always is.
_SOFTMAX_KEYS = frozenset({"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"})

_GPT_BIGCODE = Family(
    architecture="GPTBigCodeForCausalLM",
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "max_positions": "n_positions",
    },
    options={
        "norm_eps": ("layer_norm_epsilon", 1e-5),
        "activation": ("activation_function", "gelu_pytorch_tanh"),
        "tied_embeddings": ("tie_word_embeddings", True),
    },
    other_keys=frozenset({"n_inner", "multi_query", "num_key_value_heads"}),
    fixed={"scale_attn_weights": (True,)},
    inert=_SOFTMAX_KEYS,
    read=lambda values: {
        "kv_heads": 1 if values.get("multi_query", True) else values["n_head"],
        "ffn_size": values.get("n_inner") or 4 * values["n_embd"],
    },
    write=lambda config: (
        {"n_inner": config.ffn_size, "multi_query": config.kv_heads == 1, "scale_attn_weights": True}
        | dict.fromkeys(sorted(_SOFTMAX_KEYS), True)
        | dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    ),
    body="transformer.",
    first={"wte": "embed_tokens", "wpe": "embed_positions"},
    layer="h",
    in_layer={
        "ln_1": "attention_norm",
        "attn.c_attn": ("attention.q", "attention.k", "attention.v"),
        "attn.c_proj": "attention.out",
        "ln_2": "mlp_norm",
        "mlp.c_fc": "mlp.up",
        "mlp.c_proj": "mlp.down",
    },
    last={"ln_f": "final_norm"},
)

_BLOOM = Family(
    architecture="BloomForCausalLM",
    sizes={"vocab_size": "vocab_size", "hidden_size": "hidden_size", "layers": "n_layer", "heads": "n_head"},
    options={
        "norm_eps": ("layer_norm_epsilon", 1e-5),
        "tied_embeddings": ("tie_word_embeddings", True),
        # transformers sets no limit; BLOOM was trained on 2,048.
        "max_positions": ("seq_length", 2048),
    },
    aliases={"n_embed": "hidden_size", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    other_keys=frozenset({"n_inner"}),
    fixed={"apply_residual_connection_post_layernorm": (False,)},
    # How Megatron-DeepSpeed computed the same: fused kernels, sums split by rank.
    inert=_SOFTMAX_KEYS
    | {"bias_dropout_fusion", "hidden_dropout", "masked_softmax_fusion", "offset_alibi", "pretraining_tp"}
    | {"skip_bias_add", "skip_bias_add_qkv", "slow_but_exact", "unk_token_id"},
    # `n_inner` is read so that another one than this is refused when the tensors' shapes are compared.
    read=lambda values: {
        "kv_heads": values["n_head"],
        "ffn_size": values.get("n_inner") or 4 * values["hidden_size"],
    },
    write=lambda config: dict.fromkeys(("attention_dropout", "hidden_dropout"), 0.0),
    body="transformer.",
    first={"word_embeddings": "embed_tokens", "word_embeddings_layernorm": "embed_norm"},
    layer="h",
    in_layer={
        "input_layernorm": "attention_norm",
        "self_attention.query_key_value": ("attention.q", "attention.k", "attention.v"),
        "self_attention.dense": "attention.out",
        "post_attention_layernorm": "mlp_norm",
        "mlp.dense_h_to_4h": "mlp.up",
        "mlp.dense_4h_to_h": "mlp.down",
    },
    last={"ln_f": "final_norm"},
)

# ---- Llama and those that took its names

_LLAMA_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
_ATTENTION_BIAS: dict[str, tuple[str, Any]] = dict.fromkeys(("qkv_bias", "out_bias"), ("attention_bias", False))
_ATTENTION_NAMES: Names = {
    "self_attn.q_proj": "attention.q",
    "self_attn.k_proj": "attention.k",
    "self_attn.v_proj": "attention.v",
    "self_attn.o_proj": "attention.out",
}
_HEAD_NORM_NAMES: Names = {"self_attn.q_norm": "attention.q_norm", "self_attn.k_norm": "attention.k_norm"}
_GATED_MLP_NAMES: Names = {"mlp.gate_proj": "mlp.gate", "mlp.up_proj": "mlp.up", "mlp.down_proj": "mlp.down"}
_NORMS_BEFORE: Names = {"input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm"}
_NORMS_AFTER: Names = {"post_attention_layernorm": "attention_norm", "post_feedforward_layernorm": "mlp_norm"}


def _llama_like(architecture: str, in_layer: Names, kv_heads: int | None = None, **changes: Any) -> Family:
    """A family that took Llama's names. `kv_heads`: what transformers takes where config.json has none."""
    options: dict[str, tuple[str, Any]] = {
        "kv_heads": ("num_key_value_heads", kv_heads),
        "head_dim": ("head_dim", None),
        "norm_eps": ("rms_norm_eps", 1e-6),
        "activation": ("hidden_act", "silu"),
        "tied_embeddings": ("tie_word_embeddings", False),
    }
    fixed = {"partial_rotary_factor": (1, 1.0), "pretraining_tp": (1,)} | changes.pop("fixed", {})
    return Family(
        architecture=architecture,
        sizes=_LLAMA_SIZES,
        options=options | changes.pop("options", {}),
        fixed=fixed,
        body="model.",
        first={"embed_tokens": "embed_tokens"},
        layer="layers",
        in_layer=in_layer,
        last={"norm": "final_norm"},
        **changes,
    )


def _read_qwen_windows(values: dict[str, Any]) -> dict[str, Any]:
    """Qwen's window is off unless said otherwise, and then stands in layers from `max_window_layers` on, or listed."""
    layers = range(values["num_hidden_layers"])
    first = values.get("max_window_layers", 28)
    kinds = values.get("layer_types") or [
        "sliding_attention" if layer >= first else "full_attention" for layer in layers
    ]
    windowed = tuple(layer for layer, kind in enumerate(kinds) if kind == "sliding_attention")
    if not values.get("use_sliding_window", False) or not windowed:
        return {}
    return {
        "sliding_window": values.get("sliding_window", 4096),
        "windowed_layers": windowed if len(windowed) < len(layers) else None,
    }


def _write_qwen_windows(config: ModelConfig) -> dict[str, Any]:
    windows = [config.window(layer) for layer in range(config.layers)]
    return {
        "use_sliding_window": config.sliding_window is not None,
        "sliding_window": config.sliding_window,
        # For versions that know no `layer_types`; exact where the windowed layers are the last ones.
        "max_window_layers": next((layer for layer, window in enumerate(windows) if window), config.layers),
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
        "attention_dropout": 0.0,
    }


_QWEN: dict[str, Any] = {
    "kv_heads": 32,
    "other_keys": frozenset({"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"}),
    "read": _read_qwen_windows,
    "write": _write_qwen_windows,
}

FAMILIES: dict[str, Family] = {
    "gpt_bigcode": _GPT_BIGCODE,
    "bloom": _BLOOM,
    "llama": _llama_like(
        "LlamaForCausalLM",
        _NORMS_BEFORE | _ATTENTION_NAMES | _GATED_MLP_NAMES,
        options=_ATTENTION_BIAS | {"mlp_bias": ("mlp_bias", False)},
        fixed={"rope_interleaved": (False,)},
        write=lambda config: {"attention_dropout": 0.0, "pretraining_tp": 1},
    ),
    "mistral": _llama_like(
        "MistralForCausalLM",
        _NORMS_BEFORE | _ATTENTION_NAMES | _GATED_MLP_NAMES,
        kv_heads=8,
        options={"sliding_window": ("sliding_window", 4096)},
        write=lambda config: {"attention_dropout": 0.0},
    ),
    "qwen2": _llama_like(
        "Qwen2ForCausalLM",
        _NORMS_BEFORE | _ATTENTION_NAMES | _GATED_MLP_NAMES,
        fixed={"use_mrope": (False,)},
        **_QWEN,
    ),
    "qwen3": _llama_like(
        "Qwen3ForCausalLM",
        _NORMS_BEFORE | _ATTENTION_NAMES | _HEAD_NORM_NAMES | _GATED_MLP_NAMES,
        options=_ATTENTION_BIAS | {"head_dim": ("head_dim", 128)},
        **_QWEN,
    ),
    "olmo2": _llama_like(
        "Olmo2ForCausalLM",
        _ATTENTION_NAMES | _HEAD_NORM_NAMES | _NORMS_AFTER | _GATED_MLP_NAMES,
        options=_ATTENTION_BIAS | {"norm_eps": ("rms_norm_eps", 1e-5)},
        write=lambda config: {"attention_dropout": 0.0},
    ),
    "starcoder2": _llama_like(
        "Starcoder2ForCausalLM",
        _NORMS_BEFORE | _ATTENTION_NAMES | {"mlp.c_fc": "mlp.up", "mlp.c_proj": "mlp.down"},
        kv_heads=2,
        options={
            **dict.fromkeys(("qkv_bias", "out_bias", "mlp_bias"), ("use_bias", True)),
            "norm_eps": ("norm_epsilon", 1e-5),
            "activation": ("hidden_act", "gelu_pytorch_tanh"),
            "tied_embeddings": ("tie_word_embeddings", True),
            "sliding_window": ("sliding_window", None),
        },
        fixed={"mlp_type": ("default",), "norm_type": ("layer_norm",), "scale_attn_weights": (True,)},
        # Leftovers of StarCoder's config that transformers does not read: `hidden_act` and `norm_epsilon` count.
        inert=_SOFTMAX_KEYS | {"activation_function", "layer_norm_epsilon", "residual_dropout", "embedding_dropout"},
        write=lambda config: dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0),
    ),
}
