"""What the base model's rows for new tokens begin as: for each new token, old ids and their weights, kept as a file.

The weights need the text and both tokenizers, but no model; the train stage multiplies them with the model's rows.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from aurora_m.workspace import DataError, atomic_path

ROWS_FILE = "new_rows.npz"
Init = Literal["mean", "random"]


@dataclass(frozen=True)
class NewRows:
    """New tokens from `first_id` on as mixtures of old ones.

    `offsets` int64[new tokens + 1]; `old_ids` int32 and `weights` float32, one after another, which sum to 1 for each
    token. With `init` random they are the parts' mean, which is not used.
    """

    init: str
    first_id: int
    offsets: np.ndarray
    old_ids: np.ndarray
    weights: np.ndarray

    @property
    def count(self) -> int:
        return len(self.offsets) - 1

    def write(self, path: Path) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, init=np.array(self.init), first_id=np.array(self.first_id),
                     offsets=self.offsets, old_ids=self.old_ids, weights=self.weights)  # fmt: skip

    @classmethod
    def read(cls, path: Path) -> "NewRows":
        """What `write` wrote.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = dict(arrays)
            return cls(str(found.pop("init")), int(found.pop("first_id")), **found)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read ({error}); run the tokenize stage again") from None


def mean_rows(init: Init, first_id: int, parts: list[list[int]]) -> NewRows:
    """Each new token as the mean of its parts."""
    lengths = np.array([len(one) for one in parts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    old_ids = np.array([id for one in parts for id in one], dtype=np.int32)
    return NewRows(init, first_id, offsets, old_ids, np.repeat(1 / lengths, lengths).astype(np.float32))
