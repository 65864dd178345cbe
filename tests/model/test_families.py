"""Hugging Face's config.json is understood wholly or refused by the name of what is not."""

import pytest
import torch
import transformers

from aurora_m.model import ModelConfig
from aurora_m.model.families import TensorMap
from aurora_m.model.hf_config import config_from_hf, config_to_hf
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
    again = read(config_to_hf(config, torch.float32, eod_id=0))
    heads = {"head_dim": config.head_size}
    assert again.model_copy(update=heads) == config.model_copy(update=heads)


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
        (LLAMA | {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type is 'dynamic'"),
        (LLAMA | {"rope_parameters": {"rope_type": "default", "factor": 2.0}}, "'factor'"),
        (LLAMA | {"rope_parameters": {"partial_rotary_factor": 0.5}}, "'partial_rotary_factor'"),
        (LLAMA | {"num_attention_heads": 3}, "hidden_size 8 is not a multiple of heads 3"),
        (LLAMA | {"hidden_size": "wide"}, "hidden_size"),
        (LLAMA | {"model_type": "mamba"}, "model_type is 'mamba', expected one of bloom, gpt_bigcode, llama, mistral"),
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


def test_a_config_as_starcoder2_has_it_is_understood():
    config = read(
        {
            "activation_function": "gelu",
            "attention_softmax_in_fp32": True,
            "embedding_dropout": 0.1,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 3072,
            "intermediate_size": 12288,
            "layer_norm_epsilon": 1e-05,
            "max_position_embeddings": 16384,
            "mlp_type": "default",
            "model_type": "starcoder2",
            "norm_epsilon": 1e-05,
            "norm_type": "layer_norm",
            "num_attention_heads": 24,
            "num_hidden_layers": 30,
            "num_key_value_heads": 2,
            "residual_dropout": 0.1,
            "rope_theta": 999999.4420358813,
            "scale_attn_weights": True,
            "sliding_window": 4096,
            "use_bias": True,
            "vocab_size": 49152,
        }
    )
    assert (config.activation, config.sliding_window, config.kv_heads) == ("gelu_tanh", 4096, 2)
    assert config.qkv_bias and config.mlp_bias and config.tied_embeddings


def test_a_config_as_bloom_has_it_is_understood():
    values = {
        "apply_residual_connection_post_layernorm": False,
        "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True,
        "hidden_dropout": 0.0,
        "layer_norm_epsilon": 1e-05,
        "masked_softmax_fusion": True,
        "model_type": "bloom",
        "n_embed": 14336,
        "n_inner": None,
        "n_layer": 70,
        "num_attention_heads": 112,
        "offset_alibi": 100,
        "pretraining_tp": 4,
        "seq_length": 4096,
        "skip_bias_add": True,
        "skip_bias_add_qkv": False,
        "slow_but_exact": False,
        "unk_token_id": 0,
        "vocab_size": 250880,
    }
    config = read(values)
    assert (config.heads, config.kv_heads, config.head_size, config.ffn_size) == (112, 112, 128, 57344)
    assert (config.max_positions, config.positions, config.embedding_norm) == (4096, "alibi", True)
    with pytest.raises(DataError, match="apply_residual_connection_post_layernorm is True"):
        read(values | {"apply_residual_connection_post_layernorm": True})


@pytest.mark.parametrize(
    "family", ["starcoder2", "bloom", "llama", "mistral", "qwen2", "qwen3", "olmo2", "gpt_bigcode"]
)
def test_what_a_config_leaves_out_means_what_transformers_takes_it_to_mean(family):
    config_class = transformers.CONFIG_MAPPING[family]
    sizes = {"vocab_size": 9, "hidden_size": 4096, "intermediate_size": 12, "num_hidden_layers": 40}
    sizes |= {"num_attention_heads": 32, "max_position_embeddings": 64}
    if family == "gpt_bigcode":
        sizes = {"vocab_size": 9, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    if family == "bloom":
        sizes = {"vocab_size": 9, "hidden_size": 64, "n_layer": 2, "n_head": 4}
    for changes in ({}, {"use_sliding_window": True}) if family.startswith("qwen") else ({},):
        left_out = read({"model_type": family} | sizes | changes)
        written = read(config_class(**sizes, **changes).to_dict())
        heads = {"head_dim": left_out.head_size}
        assert left_out.model_copy(update=heads) == written.model_copy(update=heads)


@pytest.mark.parametrize(("groups", "rows"), [(1, [4, 2, 2]), (2, [4, 4, 4])])
def test_joining_undoes_splitting(groups, rows):
    tensor = torch.arange(sum(rows) * 3.0).view(-1, 3)
    tensor_map = TensorMap("theirs", ("q", "k", "v"), groups)
    parts = [part.flatten(0, 1) for part in tensor_map.split(tensor, rows)]
    assert [len(part) for part in parts] == rows
    assert torch.equal(tensor_map.join(parts), tensor)
