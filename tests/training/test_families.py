"""Every family goes through the train stage, and its last model is one that transformers loads."""

from typing import get_args

import pytest
import torch
import transformers
from tests.training.synthetic import tiny_base, tiny_config, write_tokens
from tests.training.test_stage import go, metrics

from aurora_m.model import load_model
from aurora_m.model.config import Family


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("train") / "tokens")


@pytest.mark.parametrize("family", get_args(Family))
def test_a_family_trains_from_scratch_to_a_model_for_transformers(tokens, tmp_path, family):
    window = {"sliding_window": 20} if family == "mistral" else {}
    go(tokens, tmp_path, tiny_config(precision="float32"), tiny_base(family=family, **window))
    losses = [row["loss"] for row in metrics(tmp_path) if row["phase"] == "base"]
    assert losses[-1] < losses[0]
    folder = tmp_path / "CAP" / "model"
    ours, theirs = load_model(folder), transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        assert (ours.logits(ours(ids)) - theirs(ids).logits).abs().max() < 1e-4
