"""A small valid recipe to break."""

from pathlib import Path

import pytest

RECIPE = """\
name: small
seed: 3
paths: {data: ../data}
base:
  architecture: {family: gpt_bigcode, layers: 2, hidden_size: 32, heads: 2, max_positions: 128}
domains:
  code:
    rules: code
    sources:
      - {kind: code, path: tree}
  notes:
    rules: none
    sources:
      - {kind: jsonl, path: "{data}/notes.jsonl.zst"}
tokenizer:
  train: {vocab_size: 300, domains: [code]}
train:
  ledger: {every: 1K}
  checkpoint: {every: 2K}
  phases:
    - name: base
      tokens: 2K
      mixture: {code: 1.0}
      sequence_length: 64
      tokens_per_step: 128
      lr: {peak: 1e-3}
    - name: CAP
      tokens: 4K
      mixture: {code: 25%, notes: 0.75}
      sequence_length: 64
      tokens_per_step: 128
      lr: {peak: 1e-3}
"""


@pytest.fixture
def recipe_file(tmp_path) -> Path:
    path = tmp_path / "recipes" / "small.yaml"
    path.parent.mkdir()
    path.write_text(RECIPE)
    return path
