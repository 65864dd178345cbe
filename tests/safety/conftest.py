"""One tokenizer, one tiny model and one set of harmless rows for the whole room."""

import pytest
import torch
from tests.safety.material import row, write_rows, write_tokens, write_trained

from aurora_m.safety import alignment, measures


@pytest.fixture(scope="session")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokenized"))


@pytest.fixture(scope="session")
def train(tmp_path_factory, tokens):
    return write_trained(tmp_path_factory.mktemp("trained"), tokens)


@pytest.fixture
def rows_file(tmp_path, monkeypatch):
    """24 harmless rows in place of the shipped ones."""
    torch.set_num_threads(1)
    path = write_rows(tmp_path / "rows.jsonl", [row(number) for number in range(24)])
    for module in (alignment, measures):
        monkeypatch.setattr(module, "shipped_prompt_files", lambda: [path])
    return path
