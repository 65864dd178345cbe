"""A model's configuration is data: sizes are checked, families are sets of values, importing it is cheap."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from aurora_m.model import ArchitectureConfig, BaseConfig, ModelConfig

SIZES: dict[str, Any] = {"layers": 2, "hidden_size": 64, "heads": 4}


def test_importing_the_configs_imports_no_torch():
    script = "import sys, aurora_m.model; from aurora_m.model import BaseConfig; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_gpt_bigcode_is_multi_query_with_learned_positions_and_a_tied_head():
    config = ArchitectureConfig(**SIZES).model_config_for(100)
    assert (config.family, config.kv_heads, config.ffn_size, config.positions) == ("gpt_bigcode", 1, 256, "learned")
    assert (config.norm, config.activation, config.gated_mlp) == ("layernorm", "gelu_tanh", False)
    assert config.qkv_bias and config.out_bias and config.mlp_bias and config.tied_embeddings


def test_llama_is_rotary_gated_and_without_biases():
    config = ArchitectureConfig.model_validate(SIZES | {"family": "llama"}).model_config_for(100)
    assert (config.kv_heads, config.ffn_size, config.positions) == (4, 192, "rotary")
    assert (config.norm, config.activation, config.gated_mlp) == ("rmsnorm", "silu", True)
    assert not any((config.qkv_bias, config.out_bias, config.mlp_bias, config.tied_embeddings))


@pytest.mark.parametrize(
    ("family", "features"),
    [
        ("starcoder2", {"positions": "rotary", "norm": "layernorm", "gated_mlp": False, "mlp_bias": True}),
        ("bloom", {"positions": "alibi", "embedding_norm": True, "kv_heads": 4, "ffn_size": 256}),
        ("mistral", {"positions": "rotary", "sliding_window": 32, "qkv_bias": False}),
        ("qwen2", {"qkv_bias": True, "out_bias": False, "mlp_bias": False, "qk_norm": None}),
        ("qwen3", {"qk_norm": "head", "norm_place": "before", "qkv_bias": False}),
        ("olmo2", {"qk_norm": "full", "norm_place": "after", "ffn_size": 192}),
    ],
)
def test_families_differ_in_features(family, features):
    window = {"sliding_window": 32} if family == "mistral" else {}
    config = ArchitectureConfig.model_validate(SIZES | {"family": family} | window).model_config_for(100)
    assert {name: getattr(config, name) for name in features} == features


def test_a_window_may_stand_in_some_layers_only():
    values = ArchitectureConfig(**SIZES).model_config_for(100).model_dump() | {"sliding_window": 8}
    assert [ModelConfig.model_validate(values).window(layer) for layer in (0, 1)] == [8, 8]
    some = ModelConfig.model_validate(values | {"windowed_layers": (1,)})
    assert [some.window(layer) for layer in (0, 1)] == [None, 8]
    for wrong in ({"windowed_layers": (2,)}, {"windowed_layers": (0,), "sliding_window": None}):
        with pytest.raises(ValidationError, match="windowed_layers"):
            ModelConfig.model_validate(values | wrong)


def test_counts_are_written_as_in_the_recipe():
    assert ArchitectureConfig.model_validate(SIZES | {"hidden_size": "1K"}).hidden_size == 1000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 65}, "hidden_size 65 is not a multiple of heads 4"),
        ({"kv_heads": 2}, "kv_heads 1 or 4"),
        ({"family": "llama", "kv_heads": 3}, "heads 4 is not a multiple of kv_heads 3"),
        ({"family": "llama", "head_dim": 5}, "even head size, got 5"),
        ({"rope_theta": 5e5}, "learned positions"),
        ({"head_dim": 8}, "leave head_dim out"),
        ({"sliding_window": 8}, "gpt_bigcode has no sliding window"),
        ({"family": "bloom", "rope_theta": 5e5}, "bloom has alibi positions"),
        ({"family": "bloom", "kv_heads": 2}, "as many kv_heads as heads"),
        ({"family": "bloom", "ffn_size": 100}, "ffn_size 4 \\* hidden_size"),
        ({"layers": 0}, "greater than 0"),
        ({"dropout": 0.1}, "Extra inputs"),
    ],
)
def test_impossible_architectures_are_refused_with_the_reason(values, message):
    with pytest.raises(ValidationError, match=message):
        ArchitectureConfig.model_validate(SIZES | values)


def test_padding_cannot_be_smaller_than_the_vocabulary():
    values = ArchitectureConfig(**SIZES).model_config_for(100).model_dump()
    assert ModelConfig.model_validate(values | {"vocab_rows": 128}).embedding_rows == 128
    with pytest.raises(ValidationError, match="vocab_rows 64 is below vocab_size 100"):
        ModelConfig.model_validate(values | {"vocab_rows": 64})


@pytest.mark.parametrize("values", [{}, {"path": "a/b", "architecture": SIZES}])
def test_a_base_is_a_path_or_an_architecture(values):
    with pytest.raises(ValidationError, match="of `path` and `architecture` given"):
        BaseConfig.model_validate(values)
    assert BaseConfig(path="bigcode/starcoderplus", revision="main").path
    with pytest.raises(ValidationError, match="needs a `path`"):
        BaseConfig.model_validate({"architecture": SIZES, "revision": "main"})
