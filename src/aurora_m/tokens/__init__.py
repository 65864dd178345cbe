"""Clean documents → token shards → batches. Only the configs are imported at once; the rest when first asked for."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import FimConfig, MixtureRule, SpecialTokens, TokenizerConfig, TokenizerTrainConfig

if TYPE_CHECKING:
    from .batches import Batch, HeldoutBatch, HeldoutBatches, TrainBatches, heldout_batches
    from .mixture import Mixture, check_shares
    from .mixture_rules import resolve_shares
    from .shards import DomainTokens, Shard, ShardWriter
    from .stage import tokenize
    from .streams import DomainStream
    from .tokenizer import Tokenizer, load_tokenizer


__all__ = [
    "Batch",
    "DomainStream",
    "DomainTokens",
    "FimConfig",
    "HeldoutBatch",
    "HeldoutBatches",
    "Mixture",
    "MixtureRule",
    "Shard",
    "ShardWriter",
    "SpecialTokens",
    "Tokenizer",
    "TokenizerConfig",
    "TokenizerTrainConfig",
    "TrainBatches",
    "check_shares",
    "heldout_batches",
    "load_tokenizer",
    "resolve_shares",
    "tokenize",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Batch": "batches",
        "DomainStream": "streams",
        "DomainTokens": "shards",
        "HeldoutBatch": "batches",
        "HeldoutBatches": "batches",
        "Mixture": "mixture",
        "Shard": "shards",
        "ShardWriter": "shards",
        "Tokenizer": "tokenizer",
        "TrainBatches": "batches",
        "check_shares": "mixture",
        "heldout_batches": "batches",
        "load_tokenizer": "tokenizer",
        "resolve_shares": "mixture_rules",
        "tokenize": "stage",
    },
)
