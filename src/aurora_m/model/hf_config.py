"""Hugging Face's config.json, both ways, by the families' maps.

A key of config.json that is not listed is refused: a feature we do not know would silently change the model.
"""

import math
from typing import Any

import torch
from pydantic import ValidationError

from ..workspace import AuroraError, DataError
from .config import FAMILY_FEATURES, ModelConfig
from .families import FAMILIES, Family

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
# fmt: on

# Features no family here has: accepted only at the value that means "off".
_OFF_KEYS: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "pruned_heads": ({},),
    "torchscript": (False,),
    "use_bfloat16": (False,),
}
_ROTARY_KEYS = {"rope_theta", "rope_scaling", "rope_parameters"}

_ACTIVATIONS_FROM_HF = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
_ACTIVATIONS_TO_HF = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "silu": "silu", "relu": "relu"}


def config_from_hf(values: dict[str, Any], origin: str) -> ModelConfig:
    """The ModelConfig of a config.json.

    Args:
        origin: the file's name, for messages.

    Raises:
        DataError: another family, a missing key, or a key or value whose effect is not implemented, by name.
    """
    name = values.get("model_type")
    if name not in FAMILIES:
        raise DataError(f"{origin}: model_type is {name!r}, expected one of {', '.join(sorted(FAMILIES))}")
    family = FAMILIES[name]
    values = {family.aliases.get(key, key): value for key, value in values.items()}
    _refuse_unknown(values, name, family, origin)
    try:
        fields = {ours: values[theirs] for ours, theirs in family.sizes.items()}
        fields |= {ours: values.get(theirs, default) for ours, (theirs, default) in family.options.items()}
        fields |= family.read(values)
        if "activation" in fields:
            fields["activation"] = _activation(fields["activation"], family.options["activation"][0], origin)
        if fields["kv_heads"] is None:
            fields["kv_heads"] = fields["heads"]
        if FAMILY_FEATURES[name]["positions"] == "rotary":
            fields |= _rotary_from_hf(values, origin)
        return ModelConfig(**(FAMILY_FEATURES[name] | {"family": name} | fields))
    except KeyError as error:
        raise DataError(f"{origin}: key {error.args[0]!r} is missing, which every {name} has") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" if e["loc"] else e["msg"] for e in error.errors()
        )
        raise DataError(f"{origin}: {problems}") from None


def config_to_hf(config: ModelConfig, dtype: torch.dtype, eod_id: int | None) -> dict[str, Any]:
    """The config.json of a model without vocabulary padding; `eod_id` begins and ends documents.

    Raises:
        AuroraError: the family's config.json cannot say what this model is, so that it would be read as another one.
    """
    family = FAMILIES[config.family]
    config = config.model_copy(update={"vocab_rows": None, "head_dim": config.head_size})
    keys = family.sizes | {ours: theirs for ours, (theirs, _) in family.options.items()}
    values = {theirs: getattr(config, ours) for ours, theirs in keys.items()}
    if "activation" in keys:
        values[keys["activation"]] = _ACTIVATIONS_TO_HF[config.activation]
    values = {
        "architectures": [family.architecture],
        "model_type": config.family,
        **values,
        **(_rotary_to_hf(config) if config.positions == "rotary" else {}),
        **family.write(config),
        "initializer_range": 0.02,
        "bos_token_id": eod_id,
        "eos_token_id": eod_id,
        "use_cache": True,
        # transformers 4 and vLLM read `torch_dtype`, transformers 5 reads both.
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    again = config_from_hf(values, "config.json").model_copy(update={"head_dim": config.head_size})
    if again != config:
        lost = [name for name in ModelConfig.model_fields if getattr(again, name) != getattr(config, name)]
        raise AuroraError(
            f"a config.json of {config.family} cannot say that "
            + ", ".join(f"{name} is {getattr(config, name)!r}" for name in lost)
            + "; choose another family for this model"
        )
    return values


def _refuse_unknown(values: dict[str, Any], name: str, family: Family, origin: str) -> None:
    known = {*family.sizes.values(), *(key for key, _ in family.options.values()), *family.other_keys}
    if FAMILY_FEATURES[name]["positions"] == "rotary":
        known |= _ROTARY_KEYS
    for key, value in values.items():
        if key in known or key in family.inert or key in _INERT_KEYS or value is None:
            continue
        allowed = (_OFF_KEYS | family.fixed).get(key)
        if allowed is None:
            raise DataError(
                f"{origin}: key {key!r} (value {_short(value)}) is not known for {name} here, so what it "
                f"changes would be lost; remove it if it has no effect, or choose a checkpoint without it"
            )
        if value not in allowed:
            raise DataError(
                f"{origin}: {key} is {_short(value)}, but only {' or '.join(map(repr, allowed))} is implemented "
                f"for {name}"
            )


def _rotary_from_hf(values: dict[str, Any], origin: str) -> dict[str, Any]:
    """transformers 5 writes `rope_parameters`; 4 writes `rope_theta` and `rope_scaling`. Both become one dict here."""
    given = {"rope_theta": values.get("rope_theta")}
    for key in ("rope_scaling", "rope_parameters"):
        given |= values.get(key) or {}
    theta = given.pop("rope_theta", None) or 10000.0
    kind = given.pop("rope_type", None) or given.pop("type", None) or "default"
    given.pop("type", None)
    if given.get("partial_rotary_factor") == 1.0:
        del given["partial_rotary_factor"]
    given = {key: value for key, value in given.items() if value is not None}
    if kind not in _ROTARY_NAMES:
        raise DataError(f"{origin}: rope_type is {kind!r}, but only {', '.join(_ROTARY_NAMES)} are implemented")
    for key, value in given.items():
        if key not in _ROTARY_NAMES[kind]:
            raise DataError(
                f"{origin}: rotary setting {key!r} ({_short(value)}) is not implemented for rope_type {kind!r}"
            )
    if kind == "default":
        return {"rope_theta": theta}
    if "original_max_position_embeddings" in _ROTARY_NAMES[kind]:
        given.setdefault("original_max_position_embeddings", values["max_position_embeddings"])
    if kind == "yarn":
        given = _yarn_from_hf(given, values["max_position_embeddings"])
    fields = {_ROTARY_NAMES[kind][key]: value for key, value in given.items()}
    if kind == "llama3":
        for key in _ROTARY_NAMES[kind]:
            given[key]  # all are needed; a KeyError names the one that is missing
    return {"rope_theta": theta, "rope_scaling": {"kind": kind, **fields}}


# The keys of each rotary type, with our names; `mscale` and `mscale_all_dim` go into `attention_factor`.
_LLAMA3_NAMES = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_positions",
}
_YARN_NAMES = {
    "factor": "factor",
    "original_max_position_embeddings": "original_max_positions",
    "attention_factor": "attention_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "truncate": "whole_pairs",
    "mscale": "",
    "mscale_all_dim": "",
}
_ROTARY_NAMES: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": _LLAMA3_NAMES,
    "yarn": _YARN_NAMES,
}


def _yarn_from_hf(given: dict[str, Any], max_positions: int) -> dict[str, Any]:
    """Fills in the factors that YaRN derives from others."""
    given = {"factor": max_positions / given["original_max_position_embeddings"]} | given
    mscale, mscale_all_dim = given.pop("mscale", None), given.pop("mscale_all_dim", None)

    def temperature(scale: float) -> float:
        return 1.0 if given["factor"] <= 1 else 0.1 * scale * math.log(given["factor"]) + 1.0

    paired = mscale and mscale_all_dim
    derived = temperature(mscale) / temperature(mscale_all_dim) if paired else temperature(1.0)
    return {"attention_factor": float(derived)} | given


def _rotary_to_hf(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_theta": config.rope_theta, "rope_scaling": None}
    names = {ours: theirs for theirs, ours in _ROTARY_NAMES[scaling.kind].items() if ours}
    values = {names[ours]: value for ours, value in scaling.model_dump(exclude={"kind"}).items()}
    return {"rope_theta": config.rope_theta, "rope_scaling": {"rope_type": scaling.kind, **values}}


def _activation(name: str, key: str, origin: str) -> Any:
    if name not in _ACTIVATIONS_FROM_HF:
        raise DataError(f"{origin}: {key} is {name!r}, but only {', '.join(_ACTIVATIONS_FROM_HF)} are implemented")
    return _ACTIVATIONS_FROM_HF[name]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
