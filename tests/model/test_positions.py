"""Rotary tables with every scaling are those of transformers, at the sizes of real models."""

from typing import Any

import pytest
import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from aurora_m.model.hf_config import config_from_hf
from aurora_m.model.positions import rotary_frequencies, rotary_table

LLAMA_3_1 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama-2": {"rope_theta": 10_000.0, "rope_type": "default"},
    "linear": {"rope_theta": 10_000.0, "rope_type": "linear", "factor": 4.0},
    "llama-3.1": LLAMA_3_1 | {"rope_theta": 500_000.0},
    "qwen2.5-yarn": {
        "rope_theta": 1_000_000.0,
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32_768,
    },
    "yarn-original-left-out": {"rope_theta": 10_000.0, "rope_type": "yarn", "factor": 2.0},
    "yarn-own-band": {
        "rope_theta": 10_000.0,
        "rope_type": "yarn",
        "factor": 16.0,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "attention_factor": 0.9,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    },
    "yarn-mscale": {
        "rope_theta": 10_000.0,
        "rope_type": "yarn",
        "factor": 40.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "original_max_position_embeddings": 4096,
    },
    "yarn-empty-band": {
        "rope_theta": 10_000.0,
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4,
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_rotary_tables_are_those_of_transformers(name):
    theirs = transformers.LlamaConfig(
        vocab_size=9,
        hidden_size=512,
        num_attention_heads=4,
        num_hidden_layers=1,
        intermediate_size=8,
        max_position_embeddings=131_072,
        bos_token_id=0,
        eos_token_id=0,
        rope_parameters=dict(SETTINGS[name]),
    )
    config = config_from_hf(theirs.to_dict(), "config.json")
    embedding = LlamaRotaryEmbedding(theirs)
    torch.testing.assert_close(rotary_frequencies(config), embedding.inv_freq, rtol=1e-6, atol=0.0)
    positions = torch.cat([torch.arange(300), torch.arange(4000, 4100)])
    cos, sin = embedding(torch.zeros(1), positions[None])
    for ours, expected in zip(rotary_table(config, positions), (cos, sin), strict=True):
        torch.testing.assert_close(ours.squeeze(1), expected[0, :, :64], rtol=0.0, atol=2e-4)
