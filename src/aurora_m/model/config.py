"""What a model is made of, as data: ModelConfig (a decoder), ArchitectureConfig, BaseConfig (the recipe's `base`)."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ..workspace import Count, Section

Family = Literal["gpt_bigcode", "starcoder2", "bloom", "llama", "mistral", "qwen2", "qwen3", "olmo2"]
Activation = Literal["gelu_tanh", "gelu", "silu", "relu"]

_LLAMA_FEATURES: dict[str, Any] = {
    "positions": "rotary",
    "norm": "rmsnorm",
    "activation": "silu",
    "gated_mlp": True,
    "qkv_bias": False,
    "out_bias": False,
    "mlp_bias": False,
    "tied_embeddings": False,
}
_GPT_FEATURES: dict[str, Any] = {
    "positions": "learned",
    "norm": "layernorm",
    "activation": "gelu_tanh",
    "gated_mlp": False,
    "qkv_bias": True,
    "out_bias": True,
    "mlp_bias": True,
    "tied_embeddings": True,
}
# What makes a decoder a StarCoder or a Llama; everything else is size. A checkpoint's config.json may say otherwise
# where its family lets it (biases, activation, tied head).
FAMILY_FEATURES: dict[str, dict[str, Any]] = {
    "gpt_bigcode": _GPT_FEATURES,
    "starcoder2": _GPT_FEATURES | {"positions": "rotary"},
    "bloom": _GPT_FEATURES | {"positions": "alibi", "embedding_norm": True},
    "llama": _LLAMA_FEATURES,
    "mistral": _LLAMA_FEATURES,
    "qwen2": _LLAMA_FEATURES | {"qkv_bias": True},
    "qwen3": _LLAMA_FEATURES | {"qk_norm": "head"},
    "olmo2": _LLAMA_FEATURES | {"norm_place": "after", "qk_norm": "full"},
}
_WITH_WINDOW = ("starcoder2", "mistral", "qwen2", "qwen3")
_HEADS_FILL_HIDDEN = ("gpt_bigcode", "bloom")


class LinearScaling(Section):
    """Positions divided by `factor` (Chen et al. 2023)."""

    kind: Literal["linear"] = "linear"
    factor: float = Field(ge=1)


class Llama3Scaling(Section):
    """Llama 3's stretching: wavelengths that turn seldom within `original_max_positions` are stretched by `factor`."""

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1)
    low_freq_factor: float = Field(gt=0)
    high_freq_factor: float = Field(gt=0)
    original_max_positions: Count = Field(gt=0)

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"rotary scaling: high_freq_factor {self.high_freq_factor} must exceed "
                f"low_freq_factor {self.low_freq_factor}"
            )
        return self


class YarnScaling(Section):
    """YaRN (Peng et al. 2023): pairs with under `beta_slow` turns are stretched, those over `beta_fast` kept.

    `attention_factor` multiplies cosines and sines; `whole_pairs` rounds the band's limits outward to whole pairs.
    """

    kind: Literal["yarn"] = "yarn"
    factor: float = Field(ge=1)
    original_max_positions: Count = Field(gt=0)
    attention_factor: float = Field(gt=0)
    beta_fast: float = Field(default=32.0, gt=0)
    beta_slow: float = Field(default=1.0, gt=0)
    whole_pairs: bool = True

    @model_validator(mode="after")
    def _check_band(self) -> Self:
        if self.beta_fast <= self.beta_slow:
            raise ValueError(f"rotary scaling: beta_fast {self.beta_fast} must exceed beta_slow {self.beta_slow}")
        return self


RotaryScaling = Annotated[LinearScaling | Llama3Scaling | YarnScaling, Field(discriminator="kind")]


class ModelConfig(Section):
    """One decoder. The features are data, so that a family is a set of values and not a branch in the code.

    `vocab_size` counts the tokens that exist; `vocab_rows` counts the rows of the embedding when it is padded for
    sharding (None: the same). Padding rows are never scored and never exported.

    `norm_place` is where a sublayer's norm stands: on its input, or on its output before that is added to the stream.
    `qk_norm` normalises queries and keys by RMS, each head by itself or over the full width. With `sliding_window` a
    token sees the last so many tokens, itself included, in the layers listed in `windowed_layers` (None: in all).
    """

    family: Family
    vocab_size: Count = Field(gt=0)
    vocab_rows: Count | None = None
    hidden_size: Count = Field(gt=0)
    layers: Count = Field(gt=0)
    heads: Count = Field(gt=0)
    kv_heads: Count = Field(gt=0)
    head_dim: Count | None = Field(default=None, gt=0)
    ffn_size: Count = Field(gt=0)
    max_positions: Count = Field(gt=0)
    positions: Literal["learned", "rotary", "alibi"]
    rope_theta: float = Field(default=10000.0, gt=0)
    rope_scaling: RotaryScaling | None = None
    sliding_window: Count | None = Field(default=None, gt=0)
    windowed_layers: tuple[int, ...] | None = None
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: float = Field(default=1e-5, gt=0)
    norm_place: Literal["before", "after"] = "before"
    embedding_norm: bool = False
    qk_norm: Literal["head", "full"] | None = None
    activation: Activation
    gated_mlp: bool
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    tied_embeddings: bool

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // self.heads

    @property
    def embedding_rows(self) -> int:
        """Rows of the embedding and of the head, padding included."""
        return self.vocab_rows or self.vocab_size

    def window(self, layer: int) -> int | None:
        """How many tokens a token of this layer sees, itself included; None: all before it."""
        return self.sliding_window if self.windowed_layers is None or layer in self.windowed_layers else None

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.head_dim is None and self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}; "
                f"change one of them or set head_dim"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.positions == "rotary" and self.head_size % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.head_size}; change heads or head_dim")
        if self.positions != "rotary" and self.rope_scaling:
            raise ValueError(f"rope_scaling belongs to rotary positions, and this model has {self.positions} ones")
        if self.vocab_rows is not None and self.vocab_rows < self.vocab_size:
            raise ValueError(f"vocab_rows {self.vocab_rows} is below vocab_size {self.vocab_size}")
        if self.windowed_layers is not None:
            if self.sliding_window is None:
                raise ValueError("windowed_layers lists layers with a sliding window, but sliding_window is not set")
            if any(not 0 <= layer < self.layers for layer in self.windowed_layers):
                raise ValueError(f"windowed_layers {self.windowed_layers} are not all among {self.layers} layers")
        return self


class ArchitectureConfig(Section):
    """A model to train from scratch, in few numbers. The vocabulary's size comes from the tokenizer.

    Left out: `kv_heads` is 1 for gpt_bigcode (multi-query) and `heads` for the others; `ffn_size` is 4 * hidden_size
    for plain MLPs and 8/3 * hidden_size rounded up to a multiple of 64 for gated ones (which have three matrices, not
    two); `tied_embeddings` is what the family has; without `sliding_window` a token sees all before it.
    """

    family: Family = "gpt_bigcode"
    layers: Count = Field(gt=0)
    hidden_size: Count = Field(gt=0)
    heads: Count = Field(gt=0)
    kv_heads: Count | None = Field(default=None, gt=0)
    head_dim: Count | None = Field(default=None, gt=0)
    ffn_size: Count | None = Field(default=None, gt=0)
    max_positions: Count = Field(default=2048, gt=0)
    sliding_window: Count | None = Field(default=None, gt=0)
    tied_embeddings: bool | None = None
    rope_theta: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        family, positions = self.family, FAMILY_FEATURES[self.family]["positions"]
        if self.rope_theta is not None and positions != "rotary":
            raise ValueError(f"{family} has {positions} positions, so rope_theta means nothing; leave it out")
        if self.sliding_window is not None and family not in _WITH_WINDOW:
            raise ValueError(
                f"{family} has no sliding window; leave sliding_window out, or take {', '.join(_WITH_WINDOW)}"
            )
        if self.head_dim is not None and family in _HEADS_FILL_HIDDEN:
            raise ValueError(f"{family} heads are hidden_size / heads wide; leave head_dim out")
        if family == "gpt_bigcode" and self.kv_heads not in (None, 1, self.heads):
            raise ValueError(f"gpt_bigcode has kv_heads 1 or {self.heads} (= heads), got {self.kv_heads}")
        if family == "bloom" and self.kv_heads not in (None, self.heads):
            raise ValueError(f"bloom has as many kv_heads as heads ({self.heads}), got {self.kv_heads}; leave it out")
        if family == "bloom" and self.ffn_size not in (None, 4 * self.hidden_size):
            raise ValueError(f"bloom has ffn_size 4 * hidden_size ({4 * self.hidden_size}), got {self.ffn_size}")
        self.model_config_for(vocab_size=1)
        return self

    def model_config_for(self, vocab_size: int) -> ModelConfig:
        """The whole configuration for a tokenizer of `vocab_size` tokens."""
        features = dict(FAMILY_FEATURES[self.family])
        if self.tied_embeddings is not None:
            features["tied_embeddings"] = self.tied_embeddings
        if self.rope_theta is not None:
            features["rope_theta"] = self.rope_theta
        return ModelConfig(
            family=self.family,
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads or (1 if self.family == "gpt_bigcode" else self.heads),
            head_dim=self.head_dim,
            ffn_size=self.ffn_size or self._usual_ffn_size(),
            max_positions=self.max_positions,
            sliding_window=self.sliding_window,
            **features,
        )

    def _usual_ffn_size(self) -> int:
        if not FAMILY_FEATURES[self.family]["gated_mlp"]:
            return 4 * self.hidden_size
        return -(-8 * self.hidden_size // (3 * 64)) * 64


class LoraConfig(Section):
    """Adapters of `rank` beside the frozen matrices of the layers, scaled by alpha / rank; merged in what is exported.

    `targets` names the matrices: q, k, v, out of attention and gate, up, down of the MLP; None: all there are.
    """

    rank: Count = Field(gt=0)
    alpha: float = Field(gt=0)
    targets: list[Literal["q", "k", "v", "out", "gate", "up", "down"]] | None = Field(default=None, min_length=1)


class BaseConfig(Section):
    """The recipe's `base`: an existing checkpoint (`path`: folder or Hugging Face id), or an `architecture`.

    `knows` names the domains an existing checkpoint was trained on, so that report and model card can tell what was
    forgotten from what was learned; of an `architecture`, the phase `base` says so.
    """

    path: str | None = Field(default=None, min_length=1)
    revision: str | None = None
    architecture: ArchitectureConfig | None = None
    knows: list[str] = []

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.path is None) == (self.architecture is None):
            given = "both" if self.path is not None else "neither"
            raise ValueError(
                f"base: {given} of `path` and `architecture` given; name an existing checkpoint (path: folder or "
                f"Hugging Face id) or an architecture to train from scratch, not both"
            )
        if self.revision is not None and self.path is None:
            raise ValueError(f"base: revision {self.revision!r} needs a `path`")
        return self
