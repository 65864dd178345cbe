"""Names and layouts of Hugging Face checkpoints, both ways: config.json and tensors of gpt_bigcode and llama.

A key of config.json that is not listed here is refused: a feature we do not know would silently change the model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ..workspace import DataError
from .config import ModelConfig, RotaryScaling

# fmt: off
# Keys of any config.json that say nothing about what the model computes: how it was trained (dropout too: we train
# without), how text is drawn from it, how old versions wrote it.
_INERT_KEYS = {
    "_attn_implementation_autoset", "_name_or_path", "architectures", "attention_dropout", "attn_pdrop",
    "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "decoder_start_token_id", "diversity_penalty", "do_sample", "dtype",
    "early_stopping", "embd_pdrop", "encoder_no_repeat_ngram_size", "eos_token_id",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "id2label",
    "inference_runner", "initializer_range", "is_llama_config", "label2id", "length_penalty", "max_batch_size",
    "max_length", "max_new_tokens", "max_sequence_length", "min_length", "model_type", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "pad_key_length", "pad_token_id",
    "pre_allocate_kv_cache", "prefix", "problem_type", "remove_invalid_values", "repetition_penalty", "resid_pdrop",
    "return_dict", "return_dict_in_generate", "runner_max_sequence_length", "sep_token_id", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "suppress_tokens",
    "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "top_k",
    "top_p", "torch_dtype", "transformers_version", "typical_p", "use_cache", "validate_runner_input", "vocab_size",
}

# Keys each family's config is read from.
_GPT_BIGCODE_KEYS = {
    "vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "n_positions", "multi_query", "activation_function",
    "layer_norm_epsilon", "tie_word_embeddings", "num_key_value_heads",
}
_LLAMA_KEYS = {
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "max_position_embeddings", "hidden_act", "rms_norm_eps", "attention_bias", "mlp_bias",
    "tie_word_embeddings", "rope_theta", "rope_scaling", "rope_parameters",
}
# fmt: on

# Features no family here has: accepted only at the value that means "off".
_OFF_KEYS: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "pretraining_tp": (1,),
    "pruned_heads": ({},),
    "torchscript": (False,),
    "use_bfloat16": (False,),
}

_ACTIVATIONS_FROM_HF = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
_ACTIVATIONS_TO_HF = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "silu": "silu", "relu": "relu"}


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
        grouped = [tensor.reshape(self.groups, -1, *tensor.shape[1:]) for tensor in tensors]
        return torch.cat(grouped, dim=1).flatten(0, 1)

    def split(self, tensor: Tensor, rows: list[int]) -> list[Tensor]:
        """The checkpoint's tensor as our parameters, which have `rows` rows each."""
        if len(rows) == 1:
            return [tensor]
        grouped = tensor.reshape(self.groups, -1, *tensor.shape[1:])
        parts = grouped.split([count // self.groups for count in rows], dim=1)
        return [part.flatten(0, 1) for part in parts]


def tensor_maps(config: ModelConfig) -> list[TensorMap]:
    """Every tensor of a checkpoint of this model, in file order."""
    return list(_FAMILIES[config.family].tensors(config))


def is_inert_tensor(name: str) -> bool:
    """Whether a tensor is a constant that old versions of transformers stored: a causal mask, rotary frequencies."""
    return name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"))


def config_from_hf(values: dict[str, Any], origin: str) -> ModelConfig:
    """The ModelConfig of a config.json.

    Args:
        origin: the file's name, for messages.

    Raises:
        DataError: another family, a missing key, or a key or value whose effect is not implemented, by name.
    """
    family_name = values.get("model_type")
    if family_name not in _FAMILIES:
        raise DataError(f"{origin}: model_type is {family_name!r}, expected one of {', '.join(sorted(_FAMILIES))}")
    family = _FAMILIES[family_name]
    for key, value in values.items():
        if key in family.keys or key in _INERT_KEYS or value is None:
            continue
        allowed = (_OFF_KEYS | family.fixed).get(key)
        if allowed is None:
            raise DataError(
                f"{origin}: key {key!r} (value {_short(value)}) is not known for {family_name} here, so what it "
                f"changes would be lost; remove it if it has no effect, or choose a checkpoint without it"
            )
        if value not in allowed:
            raise DataError(
                f"{origin}: {key} is {_short(value)}, but only {' or '.join(map(repr, allowed))} is implemented "
                f"for {family_name}"
            )
    try:
        return family.from_hf(values, origin)
    except KeyError as error:
        raise DataError(f"{origin}: key {error.args[0]!r} is missing, which every {family_name} has") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" if e["loc"] else e["msg"] for e in error.errors()
        )
        raise DataError(f"{origin}: {problems}") from None


def config_to_hf(config: ModelConfig, dtype: torch.dtype, eod_id: int | None) -> dict[str, Any]:
    """The config.json of a model without vocabulary padding; `eod_id` begins and ends documents."""
    family = _FAMILIES[config.family]
    return {
        "architectures": [family.architecture],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        **family.to_hf(config),
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": 0.02,
        "bos_token_id": eod_id,
        "eos_token_id": eod_id,
        "use_cache": True,
        # transformers 4 and vLLM read `torch_dtype`, transformers 5 reads both.
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def _gpt_bigcode_from_hf(values: dict[str, Any], origin: str) -> ModelConfig:
    multi_query = values.get("multi_query", True)
    return ModelConfig(
        family="gpt_bigcode",
        vocab_size=values["vocab_size"],
        hidden_size=values["n_embd"],
        layers=values["n_layer"],
        heads=values["n_head"],
        kv_heads=1 if multi_query else values["n_head"],
        ffn_size=values.get("n_inner") or 4 * values["n_embd"],
        max_positions=values["n_positions"],
        positions="learned",
        norm="layernorm",
        norm_eps=values.get("layer_norm_epsilon", 1e-5),
        activation=_activation(values.get("activation_function", "gelu_pytorch_tanh"), "activation_function", origin),
        gated_mlp=False,
        biases=True,
        tied_embeddings=values.get("tie_word_embeddings", True),
    )


def _gpt_bigcode_to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_embd": config.hidden_size,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.ffn_size,
        "n_positions": config.max_positions,
        "multi_query": config.kv_heads == 1,
        "activation_function": _ACTIVATIONS_TO_HF[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "scale_attn_weights": True,
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def _gpt_bigcode_tensors(config: ModelConfig) -> Iterator[TensorMap]:
    yield TensorMap("transformer.wte.weight", ("embed_tokens.weight",))
    yield TensorMap("transformer.wpe.weight", ("embed_positions.weight",))
    # Multi-query checkpoints stack all queries, one key, one value; multi-head ones query, key, value of each head.
    groups = 1 if config.kv_heads == 1 else config.heads
    for index in range(config.layers):
        theirs, ours = f"transformer.h.{index}", f"layers.{index}"
        for kind in ("weight", "bias"):
            parts = tuple(f"{ours}.attention.{part}.{kind}" for part in ("q", "k", "v"))
            yield TensorMap(f"{theirs}.ln_1.{kind}", (f"{ours}.attention_norm.{kind}",))
            yield TensorMap(f"{theirs}.attn.c_attn.{kind}", parts, groups)
            yield TensorMap(f"{theirs}.attn.c_proj.{kind}", (f"{ours}.attention.out.{kind}",))
            yield TensorMap(f"{theirs}.ln_2.{kind}", (f"{ours}.mlp_norm.{kind}",))
            yield TensorMap(f"{theirs}.mlp.c_fc.{kind}", (f"{ours}.mlp.up.{kind}",))
            yield TensorMap(f"{theirs}.mlp.c_proj.{kind}", (f"{ours}.mlp.down.{kind}",))
    yield TensorMap("transformer.ln_f.weight", ("final_norm.weight",))
    yield TensorMap("transformer.ln_f.bias", ("final_norm.bias",))
    if not config.tied_embeddings:
        yield TensorMap("lm_head.weight", ("head.weight",))


def _llama_from_hf(values: dict[str, Any], origin: str) -> ModelConfig:
    biases = values.get("attention_bias", False)
    if values.get("mlp_bias", False) != biases:
        raise DataError(
            f"{origin}: attention_bias {biases} with mlp_bias {not biases} is not implemented; only equal ones"
        )
    theta, scaling = _rotary_from_hf(values, origin)
    return ModelConfig(
        family="llama",
        vocab_size=values["vocab_size"],
        hidden_size=values["hidden_size"],
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        kv_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
        head_dim=values.get("head_dim"),
        ffn_size=values["intermediate_size"],
        max_positions=values["max_position_embeddings"],
        positions="rotary",
        rope_theta=theta,
        rope_scaling=scaling,
        norm="rmsnorm",
        norm_eps=values.get("rms_norm_eps", 1e-6),
        activation=_activation(values.get("hidden_act", "silu"), "hidden_act", origin),
        gated_mlp=True,
        biases=biases,
        tied_embeddings=values.get("tie_word_embeddings", False),
    )


def _rotary_from_hf(values: dict[str, Any], origin: str) -> tuple[float, RotaryScaling | None]:
    """transformers 5 writes `rope_parameters`; 4 writes `rope_theta` and `rope_scaling`. Both become one dict here."""
    given = {"rope_theta": values.get("rope_theta")}
    for key in ("rope_scaling", "rope_parameters"):
        given |= values.get(key) or {}
    theta = given.pop("rope_theta", None) or 10000.0
    kind = given.pop("rope_type", None) or given.pop("type", None) or "default"
    given.pop("type", None)
    names = {
        "factor": "factor",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_max_position_embeddings": "original_max_positions",
    }
    if kind not in ("default", "llama3"):
        raise DataError(f"{origin}: rope_type is {kind!r}, but only 'default' and 'llama3' are implemented")
    known = names if kind == "llama3" else {}
    for key, value in given.items():
        if key not in known and value is not None and not (key == "partial_rotary_factor" and value == 1.0):
            raise DataError(
                f"{origin}: rotary setting {key!r} ({_short(value)}) is not implemented for rope_type {kind!r}"
            )
    if kind == "default":
        return theta, None
    return theta, RotaryScaling.model_validate({ours: given[theirs] for theirs, ours in names.items()})


def _llama_to_hf(config: ModelConfig) -> dict[str, Any]:
    rotary: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_scaling": None}
    if config.rope_scaling is not None:
        rotary["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": config.rope_scaling.factor,
            "low_freq_factor": config.rope_scaling.low_freq_factor,
            "high_freq_factor": config.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": config.rope_scaling.original_max_positions,
        }
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.ffn_size,
        "max_position_embeddings": config.max_positions,
        "hidden_act": _ACTIVATIONS_TO_HF[config.activation],
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.biases,
        "mlp_bias": config.biases,
        "attention_dropout": 0.0,
        "pretraining_tp": 1,
        **rotary,
    }


def _llama_tensors(config: ModelConfig) -> Iterator[TensorMap]:
    yield TensorMap("model.embed_tokens.weight", ("embed_tokens.weight",))
    names = {
        "self_attn.q_proj": "attention.q",
        "self_attn.k_proj": "attention.k",
        "self_attn.v_proj": "attention.v",
        "self_attn.o_proj": "attention.out",
        "mlp.gate_proj": "mlp.gate",
        "mlp.up_proj": "mlp.up",
        "mlp.down_proj": "mlp.down",
    }
    for index in range(config.layers):
        theirs, ours = f"model.layers.{index}", f"layers.{index}"
        yield TensorMap(f"{theirs}.input_layernorm.weight", (f"{ours}.attention_norm.weight",))
        for their_name, our_name in names.items():
            for kind in ("weight", "bias") if config.biases else ("weight",):
                yield TensorMap(f"{theirs}.{their_name}.{kind}", (f"{ours}.{our_name}.{kind}",))
        yield TensorMap(f"{theirs}.post_attention_layernorm.weight", (f"{ours}.mlp_norm.weight",))
    yield TensorMap("model.norm.weight", ("final_norm.weight",))
    if not config.tied_embeddings:
        yield TensorMap("lm_head.weight", ("head.weight",))


def _activation(name: str, key: str, origin: str) -> Any:
    if name not in _ACTIVATIONS_FROM_HF:
        raise DataError(f"{origin}: {key} is {name!r}, but only {', '.join(_ACTIVATIONS_FROM_HF)} are implemented")
    return _ACTIVATIONS_FROM_HF[name]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class _Family:
    architecture: str
    keys: set[str]
    fixed: dict[str, tuple[Any, ...]]
    from_hf: Callable[[dict[str, Any], str], ModelConfig]
    to_hf: Callable[[ModelConfig], dict[str, Any]]
    tensors: Callable[[ModelConfig], Iterator[TensorMap]]


_FAMILIES = {
    "gpt_bigcode": _Family(
        architecture="GPTBigCodeForCausalLM",
        keys=_GPT_BIGCODE_KEYS,
        # The two softmax switches choose where float32 is used; our softmax always is.
        fixed={
            "scale_attn_weights": (True,),
            "attention_softmax_in_fp32": (True, False),
            "scale_attention_softmax_in_fp32": (True, False),
        },
        from_hf=_gpt_bigcode_from_hf,
        to_hf=_gpt_bigcode_to_hf,
        tensors=_gpt_bigcode_tensors,
    ),
    "llama": _Family(
        architecture="LlamaForCausalLM",
        keys=_LLAMA_KEYS,
        fixed={"partial_rotary_factor": (1, 1.0), "rope_interleaved": (False,)},
        from_hf=_llama_from_hf,
        to_hf=_llama_to_hf,
        tensors=_llama_tensors,
    ),
}
