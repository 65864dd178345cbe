"""The decoder: embeddings, layers, final norm. What differs between families is data in ModelConfig."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..workspace import AuroraError
from .attention import Attention, KeyValueCache, Runs, attention_mask, runs_of_keys
from .config import ModelConfig
from .initial import init_weights
from .linear import Linear, linear
from .norms import stream_norm
from .positions import rotary_table

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": F.relu,
}


class Mlp(nn.Module):
    """`down(act(up(x)))`, or `down(act(gate(x)) * up(x))` where gated."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[config.activation]
        self.gate = Linear(config.hidden_size, config.ffn_size, bias=config.mlp_bias) if config.gated_mlp else None
        self.up = Linear(config.hidden_size, config.ffn_size, bias=config.mlp_bias)
        self.down = Linear(config.ffn_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """One transformer layer: attention and MLP, each added to the stream, each with its norm before or after it."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.window = config.window(index)
        self.norm_after = config.norm_place == "after"
        self.attention_norm = stream_norm(config)
        self.attention = Attention(config, index)
        self.mlp_norm = stream_norm(config)
        self.mlp = Mlp(config)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        masks: dict[int | None, Tensor | Runs | None],
        cache: KeyValueCache | None,
    ) -> Tensor:
        mask = masks[self.window]
        if self.norm_after:
            x = x + self.attention_norm(self.attention(x, rotary, mask, cache))
            return x + self.mlp_norm(self.mlp(x))
        x = x + self.attention(self.attention_norm(x), rotary, mask, cache)
        return x + self.mlp(self.mlp_norm(x))


class Decoder(nn.Module):
    """A causal language model up to its final norm; the head is applied by `chunked_loss` or `logits`.

    A new Decoder holds PyTorch's default weights: call `init_weights`, or load with `load_model`.

    `uses_flex_attention` is set by whoever has proved that FlexAttention works on the model's device.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.uses_flex_attention = False
        self.embed_tokens = nn.Embedding(config.embedding_rows, config.hidden_size)
        learned = config.positions == "learned"
        self.embed_positions = nn.Embedding(config.max_positions, config.hidden_size) if learned else None
        self.embed_norm = stream_norm(config) if config.embedding_norm else None
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.layers))
        self.final_norm = stream_norm(config)
        self.head = None if config.tied_embeddings else Linear(config.hidden_size, config.embedding_rows, bias=False)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Token ids (B, L) to hidden states (B, L, hidden) after the final norm.

        Args:
            positions: (L) or (B, L) place of each token in its document; None counts from the start of the row.
            document_ids: (B, L) document number of each token: attention stays inside a document. None says that each
                row is one document, which takes the faster causal path.
            cache: keys and values of earlier tokens, extended in place; document numbers go with them.

        Raises:
            AuroraError: a row is longer than `max_positions` and no positions are given.
        """
        length, start = input_ids.size(1), cache.length if cache is not None else 0
        if positions is None:
            if start + length > self.config.max_positions:
                raise AuroraError(
                    f"a sequence of {start + length} tokens is longer than the model's {self.config.max_positions} "
                    f"positions; shorten it or choose a model with more"
                )
            positions = torch.arange(start, start + length, device=input_ids.device)
        hidden = self.embed_tokens(input_ids)
        if self.embed_positions is not None:
            hidden = hidden + self.embed_positions(positions)
        if self.embed_norm is not None:
            hidden = self.embed_norm(hidden)
        rotary = rotary_table(self.config, positions) if self.config.positions == "rotary" else None
        masks = attention_masks(
            self.config, hidden, positions.size(-1), document_ids, cache, flex=self.uses_flex_attention
        )
        for layer in self.layers:
            hidden = layer(hidden, rotary, masks, cache)
        if cache is not None:
            cache.length += length
        return self.final_norm(hidden)

    @property
    def head_weight(self) -> Tensor:
        """The output matrix (vocab_size, hidden): the embedding where tied; padding rows are left out."""
        weight = self.embed_tokens.weight if self.head is None else self.head.weight
        return weight if weight.size(0) == self.config.vocab_size else weight[: self.config.vocab_size]

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all tokens (..., vocab_size). For training use `chunked_loss`, which never holds them all."""
        return linear(hidden, self.head_weight)

    def init_weights(self, seed: int) -> None:
        """Fills all weights from a seed: see `initial.init_weights`."""
        init_weights(self, seed)


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype matrix products run in: autocast's where it is on, else the tensor's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _kernels_take(hidden: Tensor) -> bool:
    """Whether there are attention kernels of ours for these hidden states."""
    return hidden.device.type == "cpu" and hidden.dtype != torch.float64


def attention_masks(
    config: ModelConfig,
    hidden: Tensor,
    length: int,
    document_ids: Tensor | None,
    cache: KeyValueCache | None,
    *,
    flex: bool = False,
) -> dict[int | None, Tensor | Runs | None]:
    """The masks of one forward pass, by a layer's window; None where plain causal attention says the same.

    On a CPU, and with `flex` elsewhere, they are runs of keys, unless there is a cache.

    Args:
        hidden: what goes into the first layer; only its dtype and device matter.
        length: L, the tokens of a row; `hidden` may be of a part of them, where a sequence lies on several devices.
        cache: notes `document_ids` as those of its next tokens.
    """
    windows = dict.fromkeys(config.window(layer) for layer in range(config.layers))
    if cache is None and (flex or _kernels_take(hidden)):
        runs = {window: runs_of_keys(config, window, length, document_ids, hidden.device) for window in windows}
        if flex:
            from .flex_attention import with_blocks  # it imports the compiler

            return {window: with_blocks(one) for window, one in runs.items()}
        return {**runs}
    start = cache.length if cache is not None else 0
    queries = keys = document_ids
    if cache is not None:
        if document_ids is not None:
            cache.documents[:, start : start + length] = document_ids
        if document_ids is not None or (start > 0 and length > 1):
            queries = cache.documents[:, start : start + length]
            keys = cache.documents[:, : start + length]
    dtype = _compute_dtype(hidden)
    return {
        window: attention_mask(config, window, length, queries, keys, dtype, hidden.device, start) for window in windows
    }


def count_parameters(model: Decoder) -> int:
    """Weights of the model; tied ones once, vocabulary padding left out, and adapters, which are merged into others."""
    config = model.config
    padding = (config.embedding_rows - config.vocab_size) * config.hidden_size
    counts = (parameter.numel() for name, parameter in model.named_parameters() if ".lora_" not in name)
    return sum(counts) - padding * (1 if config.tied_embeddings else 2)


@torch.no_grad()
def resize_vocabulary(model: Decoder, vocab_size: int, rows: int | None = None) -> None:
    """Gives the model `vocab_size` tokens, in matrices padded to `rows` (None: unpadded). In place, before optimizers.

    New tokens start as the mean of the old ones, which changes the model's predictions least; padding rows are zero.

    Raises:
        ValueError: `vocab_size` is not positive, or `rows` is below it (pydantic's ValidationError is one).
    """
    sizes = {"vocab_size": vocab_size, "vocab_rows": None if rows == vocab_size else rows}
    config = ModelConfig.model_validate(model.config.model_dump() | sizes)
    for matrix in (model.embed_tokens, model.head):
        if matrix is None:
            continue
        old = matrix.weight[: model.config.vocab_size]
        new = old.new_zeros(config.embedding_rows, config.hidden_size)
        kept = min(vocab_size, model.config.vocab_size)
        new[:kept] = old[:kept]
        new[kept:vocab_size] = old.float().mean(dim=0).to(old.dtype)
        matrix.weight = nn.Parameter(new, requires_grad=matrix.weight.requires_grad)
    model.embed_tokens.num_embeddings = config.embedding_rows
    if model.head is not None:
        model.head.out_features = config.embedding_rows
    model.config = config
