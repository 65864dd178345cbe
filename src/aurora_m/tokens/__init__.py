"""Clean documents → token shards → batches. Only the configs are imported at once; the rest when first asked for."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import (
    FimConfig,
    MixtureRule,
    SpecialTokens,
    TokenizerConfig,
    TokenizerExtendConfig,
    TokenizerTrainConfig,
)

if TYPE_CHECKING:
    from .batches import Batch, HeldoutBatch, HeldoutBatches, TrainBatches, choose_documents, heldout_batches
    from .fertility import describe_fertility, measure_fertility
    from .lasting import LastingDocuments, keep_base_heldout, keep_heldout, renumber
    from .mixture import Mixture, check_shares
    from .mixture_rules import resolve_shares
    from .new_rows import ROWS_FILE, NewRows
    from .shards import DomainTokens, Shard, ShardWriter
    from .stage import BASE_FOLDER, tokenize
    from .streams import DomainStream
    from .tokenizer import Tokenizer, load_tokenizer


__all__ = [
    "BASE_FOLDER",
    "ROWS_FILE",
    "Batch",
    "DomainStream",
    "DomainTokens",
    "FimConfig",
    "HeldoutBatch",
    "HeldoutBatches",
    "LastingDocuments",
    "Mixture",
    "MixtureRule",
    "NewRows",
    "Shard",
    "ShardWriter",
    "SpecialTokens",
    "Tokenizer",
    "TokenizerConfig",
    "TokenizerExtendConfig",
    "TokenizerTrainConfig",
    "TrainBatches",
    "check_shares",
    "choose_documents",
    "describe_fertility",
    "heldout_batches",
    "keep_base_heldout",
    "keep_heldout",
    "load_tokenizer",
    "measure_fertility",
    "renumber",
    "resolve_shares",
    "tokenize",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "BASE_FOLDER": "stage",
        "Batch": "batches",
        "DomainStream": "streams",
        "DomainTokens": "shards",
        "HeldoutBatch": "batches",
        "HeldoutBatches": "batches",
        "LastingDocuments": "lasting",
        "keep_base_heldout": "lasting",
        "keep_heldout": "lasting",
        "renumber": "lasting",
        "Mixture": "mixture",
        "NewRows": "new_rows",
        "ROWS_FILE": "new_rows",
        "Shard": "shards",
        "ShardWriter": "shards",
        "Tokenizer": "tokenizer",
        "TrainBatches": "batches",
        "check_shares": "mixture",
        "choose_documents": "batches",
        "describe_fertility": "fertility",
        "heldout_batches": "batches",
        "measure_fertility": "fertility",
        "load_tokenizer": "tokenizer",
        "resolve_shares": "mixture_rules",
        "tokenize": "stage",
    },
)
