"""Hugging Face's config.json is understood wholly or refused by the name of what is not."""

import pytest
import torch

from aurora_m.model import ModelConfig
from aurora_m.model.families import TensorMap, config_from_hf, config_to_hf
from aurora_m.workspace import DataError

GPT_BIGCODE = {"model_type": "gpt_bigcode", "vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 9,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
LLAMA3_ROTARY = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(values: dict) -> ModelConfig:
    return config_from_hf(values, "config.json")


def test_every_config_survives_export_and_import(their_model, kind):
    config = read(their_model(kind).config.to_dict())
    assert read(config_to_hf(config, torch.float32, eod_id=0)) == config.model_copy(
        update={"head_dim": config.head_size if config.family == "llama" else None}
    )


def test_old_and_new_spellings_of_rotary_settings_mean_the_same():
    old = read(LLAMA | {"rope_theta": 5e5, "rope_scaling": LLAMA3_ROTARY})
    older = read(LLAMA | {"rope_theta": 5e5, "rope_scaling": {"type": "llama3"} | LLAMA3_ROTARY})
    new = read(LLAMA | {"rope_parameters": LLAMA3_ROTARY | {"rope_theta": 5e5}})
    assert old == older == new
    assert new.rope_theta == 5e5 and new.rope_scaling is not None and new.rope_scaling.factor == 8.0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (GPT_BIGCODE | {"scale_attn_weights": False}, "scale_attn_weights is False"),
        (GPT_BIGCODE | {"add_cross_attention": True}, "add_cross_attention is True"),
        (GPT_BIGCODE | {"scale_attn_by_inverse_layer_idx": True}, "'scale_attn_by_inverse_layer_idx'"),
        (GPT_BIGCODE | {"activation_function": "quick_gelu"}, "activation_function is 'quick_gelu'"),
        (GPT_BIGCODE | {"quantization_config": {"bits": 4}}, "'quantization_config'"),
        (LLAMA | {"sliding_window": 4096}, "'sliding_window' \\(value 4096\\)"),
        (LLAMA | {"attention_multiplier": 0.1}, "'attention_multiplier'"),
        (LLAMA | {"pretraining_tp": 2}, "pretraining_tp is 2"),
        (LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type is 'yarn'"),
        (LLAMA | {"rope_parameters": {"rope_type": "default", "factor": 2.0}}, "'factor'"),
        (LLAMA | {"rope_parameters": {"partial_rotary_factor": 0.5}}, "'partial_rotary_factor'"),
        (LLAMA | {"attention_bias": True}, "attention_bias True with mlp_bias False"),
        (LLAMA | {"num_attention_heads": 3}, "hidden_size 8 is not a multiple of heads 3"),
        (LLAMA | {"hidden_size": "wide"}, "hidden_size"),
        (LLAMA | {"model_type": "mamba"}, "model_type is 'mamba', expected one of gpt_bigcode, llama"),
        ({}, "model_type is None"),
        ({key: value for key, value in LLAMA.items() if key != "intermediate_size"}, "'intermediate_size' is missing"),
        (LLAMA | {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'low_freq_factor' is missing"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(values, named):
    with pytest.raises(DataError, match=named):
        read(values)


def test_what_only_concerns_training_or_sampling_is_accepted():
    inert = {
        "attn_pdrop": 0.1,
        "use_cache": False,
        "do_sample": True,
        "transformers_version": "4.28",
        "pad_token_id": 1,
    }
    assert read(GPT_BIGCODE | inert | {"sliding_window": None}) == read(GPT_BIGCODE)


def test_a_config_as_starcoder_has_it_is_understood():
    written_by_transformers_4 = {
        "activation_function": "gelu",
        "architectures": ["GPTBigCodeForCausalLM"],
        "attention_softmax_in_fp32": True,
        "inference_runner": 0,
        "max_batch_size": None,
        "model_type": "gpt_bigcode",
        "multi_query": True,
        "n_embd": 6144,
        "n_head": 48,
        "n_inner": 24576,
        "n_layer": 40,
        "n_positions": 8192,
        "pre_allocate_kv_cache": False,
        "resid_pdrop": 0.1,
        "scale_attention_softmax_in_fp32": True,
        "scale_attn_weights": True,
        "summary_use_proj": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "validate_runner_input": True,
        "vocab_size": 49152,
    }
    config = read(written_by_transformers_4)
    assert (config.activation, config.kv_heads, config.head_size, config.tied_embeddings) == ("gelu", 1, 128, True)


@pytest.mark.parametrize(("groups", "rows"), [(1, [4, 2, 2]), (2, [4, 4, 4])])
def test_joining_undoes_splitting(groups, rows):
    tensor = torch.arange(sum(rows) * 3.0).view(-1, 3)
    tensor_map = TensorMap("theirs", ("q", "k", "v"), groups)
    parts = tensor_map.split(tensor, rows)
    assert [len(part) for part in parts] == rows
    assert torch.equal(tensor_map.join(parts), tensor)
