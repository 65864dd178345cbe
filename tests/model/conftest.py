"""Tiny models of every kind, ours and transformers', with weights far enough from zero to tell mistakes apart."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers

from aurora_m.model import ArchitectureConfig, Decoder, ModelConfig

VOCABULARY = 97
EOD = 0

_GPT_BIGCODE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_LLAMA3_ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 50_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

_YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16}
_BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4}

# Every checkpoint kind that must come in and go out: transformers' config class and its values.
KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "gpt_bigcode-mqa": (transformers.GPTBigCodeConfig, _GPT_BIGCODE),
    "gpt_bigcode-mha": (transformers.GPTBigCodeConfig, _GPT_BIGCODE | {"multi_query": False}),
    "gpt_bigcode-untied": (transformers.GPTBigCodeConfig, _GPT_BIGCODE | {"tie_word_embeddings": False}),
    "gpt_bigcode-narrow-mlp": (transformers.GPTBigCodeConfig, _GPT_BIGCODE | {"n_inner": 40}),
    "bloom": (transformers.BloomConfig, _BLOOM),
    "bloom-six-heads-untied": (
        transformers.BloomConfig,
        _BLOOM | {"hidden_size": 48, "n_head": 6, "tie_word_embeddings": False},
    ),
    "starcoder2-gqa": (transformers.Starcoder2Config, _LLAMA),
    "starcoder2-window": (transformers.Starcoder2Config, _LLAMA | {"sliding_window": 9, "use_bias": False}),
    "llama-mha-untied": (transformers.LlamaConfig, _LLAMA),
    "llama-mha-tied": (transformers.LlamaConfig, _LLAMA | {"tie_word_embeddings": True}),
    "llama-gqa-untied": (transformers.LlamaConfig, _LLAMA | {"num_key_value_heads": 2}),
    "llama-gqa-tied": (transformers.LlamaConfig, _LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "llama-mqa": (transformers.LlamaConfig, _LLAMA | {"num_key_value_heads": 1}),
    "llama-biases": (transformers.LlamaConfig, _LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "llama-attention-bias": (transformers.LlamaConfig, _LLAMA | {"attention_bias": True}),
    "llama-wide-heads": (transformers.LlamaConfig, _LLAMA | {"head_dim": 12, "rms_norm_eps": 1e-5}),
    "llama-theta": (transformers.LlamaConfig, _LLAMA | {"rope_theta": 1_000_000.0}),
    "llama-3.1-rotary": (transformers.LlamaConfig, _LLAMA | {"rope_parameters": _LLAMA3_ROTARY}),
    "llama-linear-rotary": (
        transformers.LlamaConfig,
        _LLAMA | {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}},
    ),
    "mistral-window": (transformers.MistralConfig, _LLAMA | {"num_key_value_heads": 2, "sliding_window": 7}),
    "mistral-no-window": (
        transformers.MistralConfig,
        _LLAMA | {"num_key_value_heads": 4, "sliding_window": None, "head_dim": 12},
    ),
    "qwen2": (transformers.Qwen2Config, _LLAMA | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2-yarn": (transformers.Qwen2Config, _LLAMA | {"num_key_value_heads": 4, "rope_parameters": _YARN}),
    "qwen2-last-layer-window": (
        transformers.Qwen2Config,
        _LLAMA | {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": (transformers.Qwen3Config, _LLAMA | {"num_key_value_heads": 2, "head_dim": 16}),
    "qwen3-first-layer-window": (
        transformers.Qwen3Config,
        _LLAMA
        | {
            "num_key_value_heads": 2,
            "head_dim": 16,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "olmo2-mha": (transformers.Olmo2Config, _LLAMA),
    "olmo2-gqa-biases": (transformers.Olmo2Config, _LLAMA | {"num_key_value_heads": 2, "attention_bias": True}),
}
# One architecture of ours for every family, and for every way of attending.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt_bigcode-mqa": {},
    "gpt_bigcode-mha": {"kv_heads": 4},
    "bloom": {"family": "bloom"},
    "starcoder2-window": {"family": "starcoder2", "kv_heads": 2, "sliding_window": 10},
    "llama-mha": {"family": "llama"},
    "llama-gqa": {"family": "llama", "kv_heads": 2},
    "llama-mqa": {"family": "llama", "kv_heads": 1},
    "mistral-window": {"family": "mistral", "kv_heads": 2, "sliding_window": 7},
    "qwen2": {"family": "qwen2", "kv_heads": 2},
    "qwen3": {"family": "qwen3", "kv_heads": 2, "head_dim": 12},
    "olmo2": {"family": "olmo2", "kv_heads": 2},
}


def scatter_weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights everywhere, norms around one: a swapped or forgotten tensor shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            middle = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.normal_(middle, 0.2, generator=generator)


@pytest.fixture(scope="session", autouse=True)
def _quiet_transformers() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, on a busy machine several times so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def their_model() -> Callable[..., Any]:
    """Makes transformers' model of a kind."""

    def make(kind: str, **changes: Any) -> Any:
        config_class, values = KINDS[kind]
        config = config_class(
            **(values | {"vocab_size": VOCABULARY, "bos_token_id": EOD, "eos_token_id": EOD} | changes)
        )
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        scatter_weights(model)
        return model

    return make


@pytest.fixture
def our_model() -> Callable[..., Decoder]:
    """Makes our model of a family."""

    def make(family: str = "gpt_bigcode", **changes: Any) -> Decoder:
        values = {"family": family, "layers": 2, "hidden_size": 32, "heads": 4, "max_positions": 64}
        rows = changes.pop("vocab_rows", None)
        config = ArchitectureConfig(**(values | changes)).model_config_for(VOCABULARY)
        model = Decoder(ModelConfig.model_validate(config.model_dump() | {"vocab_rows": rows}))
        scatter_weights(model)
        return model

    return make


@pytest.fixture
def tokens() -> Callable[..., torch.Tensor]:
    """Makes random token ids of a shape, without EOD."""

    def make(*shape: int, seed: int = 1) -> torch.Tensor:
        return torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))

    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `kind` runs for every kind of checkpoint, one that takes `architecture` for every architecture."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS)
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", ARCHITECTURES.values(), ids=list(ARCHITECTURES))
