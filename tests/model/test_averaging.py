"""Models between models: weight by weight what arithmetic says, and refused where weights do not correspond."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aurora_m.model import average, interpolate, load_model, same_weights, save_model
from aurora_m.workspace import DataError


@pytest.fixture
def folders(their_model, kind, tmp_path) -> list[Path]:
    """Three models of one kind with different weights, in transformers' layout."""
    found = []
    for number in range(3):
        model = their_model(kind)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        model.save_pretrained(tmp_path / str(number))
        found.append(tmp_path / str(number))
    return found


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().double() for name, parameter in model.named_parameters()}


def test_interpolation_and_mean_are_those_of_each_weight(folders):
    one, two, three = (weights(load_model(folder)) for folder in folders)
    between = weights(interpolate(folders[0], folders[1], 0.3))
    mean = weights(average(folders))
    for name in one:
        torch.testing.assert_close(between[name], 0.3 * one[name] + 0.7 * two[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(mean[name], (one[name] + two[name] + three[name]) / 3, rtol=0, atol=1e-6)


def test_the_ends_are_the_two_models_bit_by_bit(folders):
    for share, end in ((0.0, folders[1]), (1.0, folders[0])):
        model, expected = interpolate(folders[0], folders[1], share), load_model(end)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))


@pytest.fixture
def pair(their_model, tmp_path) -> tuple[Path, Path]:
    """Two models with tied embeddings and a tokenizer."""
    for name, scale in (("base", 1.0), ("final", 1.5)):
        model = their_model("llama-mha-tied")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        model.save_pretrained(tmp_path / name)
        tokenizer = {"model": {"vocab": {"a": 0}}, "padding": name}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(tokenizer))
    return tmp_path / "base", tmp_path / "final"


def store_head(folder: Path, change: float) -> None:
    """Stores a head beside the tied embedding, as some checkpoints do."""
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone() + change
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_tied_head_stored_beside_its_embedding_is_compared_with_that_embedding(pair):
    before = weights(interpolate(*pair, 0.25))
    store_head(pair[0], 0.0)
    after = weights(interpolate(*pair, 0.25))
    assert all(torch.equal(before[name], after[name]) for name in before)
    store_head(pair[0], 0.5)
    with pytest.raises(DataError, match="differs from the embedding"):
        interpolate(*pair, 0.25)


def test_other_shapes_and_other_tokenizers_are_refused_with_what_differs(pair, their_model, tmp_path):
    their_model("llama-gqa-tied").save_pretrained(tmp_path / "narrow")
    with pytest.raises(DataError, match="cannot be merged: kv_heads 4 and 2"):
        interpolate(pair[0], tmp_path / "narrow", 0.5)
    (pair[1] / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"b": 0}}}))
    with pytest.raises(DataError, match="their tokenizers differ"):
        average(list(pair))
    (pair[1] / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="final holds no tokenizer.json"):
        interpolate(*pair, 0.5)


def test_a_share_outside_of_zero_to_one_and_no_models_are_refused(pair):
    with pytest.raises(ValueError, match="base_share 1.5"):
        interpolate(*pair, 1.5)
    with pytest.raises(ValueError, match="no models"):
        average([])


def test_the_same_weights_are_known_however_they_are_stored(pair, tmp_path):
    rounded = load_model(pair[0]).bfloat16()
    save_model(rounded, tmp_path / "bfloat16")
    save_model(rounded.float(), tmp_path / "shards", max_shard_bytes=20_000)
    assert same_weights(tmp_path / "bfloat16", tmp_path / "shards")
    assert not same_weights(*pair)
