"""Checkpoints come in and go out unchanged, with the logits of transformers, and broken ones are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from aurora_m.model import KeyValueCache, export, load_model, resize_vocabulary, save_model
from aurora_m.workspace import AuroraError, DataError


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def checkpoint(their_model, tmp_path) -> Path:
    """A small Llama as transformers saves it."""
    their_model("llama-gqa-untied").save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@torch.no_grad()
def test_imported_model_has_the_logits_of_transformers(their_model, tokens, kind, tmp_path):
    theirs = their_model(kind)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    ids = tokens(3, 50)
    assert (ours.logits(ours(ids)) - theirs(ids).logits).abs().max() < 1e-4
    lengths = [20, 17, 9, 4]
    apart = torch.cat([theirs(part).logits for part in ids[:1].split(lengths, dim=1)], dim=1)
    documents = torch.cat([torch.full((length,), number) for number, length in enumerate(lengths)]).int()[None]
    positions = torch.cat([torch.arange(length) for length in lengths]).int()[None]
    assert (ours.logits(ours(ids[:1], positions, documents)) - apart).abs().max() < 1e-4
    cache = KeyValueCache(ours.config, batch=1, capacity=50, dtype=torch.float32, device="cpu")
    pieces = [slice(0, 13), slice(13, 14), slice(14, 30), slice(30, 50)]
    steps = [ours(ids[:1, piece], positions[:, piece], documents[:, piece], cache) for piece in pieces]
    assert (ours.logits(torch.cat(steps, dim=1)) - apart).abs().max() < 1e-4


@torch.no_grad()
def test_exported_model_has_our_logits_in_transformers(their_model, tokens, kind, tmp_path):
    their_model(kind).save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    save_model(ours, tmp_path / "ours", eod_id=0)
    load: Any = transformers.AutoModelForCausalLM.from_pretrained
    again, report = load(tmp_path / "ours", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert again.config.eos_token_id == again.config.bos_token_id == again.generation_config.eos_token_id == 0
    ids = tokens(3, 50)
    assert (ours.logits(ours(ids)) - again(ids).logits).abs().max() < 1e-4


def test_round_trip_is_bitwise(their_model, kind, tmp_path):
    their_model(kind).save_pretrained(tmp_path / "theirs")
    save_model(load_model(tmp_path / "theirs"), tmp_path / "ours")
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "ours" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_sharded_checkpoints_go_both_ways(their_model, kind, tmp_path):
    theirs = their_model(kind)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    ours = load_model(tmp_path / "theirs")
    save_model(ours, tmp_path / "ours", max_shard_bytes=20_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
    reloaded = load_model(tmp_path / "ours").state_dict()
    assert all(torch.equal(reloaded[name], tensor) for name, tensor in ours.state_dict().items())


def test_saving_again_leaves_no_shard_of_the_last_time(our_model, tmp_path):
    save_model(our_model(), tmp_path, max_shard_bytes=20_000)
    save_model(our_model("llama"), tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert load_model(tmp_path).config.family == "llama"


@pytest.mark.parametrize("family", ["gpt_bigcode", "llama"])
def test_vocabulary_padding_is_not_exported(our_model, tokens, family, tmp_path):
    model = our_model(family)
    ids = tokens(2, 20)
    expected = model.logits(model(ids))
    resize_vocabulary(model, 97, rows=128)
    assert torch.equal(model.logits(model(ids)), expected)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config.embedding_rows == 97
    assert torch.equal(loaded.logits(loaded(ids)), expected)
    assert transformers.AutoConfig.from_pretrained(tmp_path).vocab_size == 97


def test_bfloat16_export_loads_in_bfloat16(our_model, tmp_path):
    model = our_model("llama")
    save_model(model, tmp_path, dtype=torch.bfloat16)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.bfloat16
    loaded = load_model(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], value.bfloat16().float()) for name, value in model.state_dict().items())


def test_tokenizer_files_are_copied_and_nothing_else(our_model, tmp_path):
    source = tmp_path / "tokenizer"
    source.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "notes.txt", "evil.py"):
        (source / name).write_text("{}")
    save_model(our_model(), tmp_path / "model", source, eod_id=0)
    copied = {path.name for path in (tmp_path / "model").iterdir()} & {path.name for path in source.iterdir()}
    assert copied == {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    (source / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        save_model(our_model(), tmp_path / "model", source)


def test_missing_unexpected_and_misshapen_tensors_are_all_listed(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2, 2)
    tensors["model.norm.weight"] = torch.zeros(31)
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(torch.int8)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(DataError) as refused:
        load_model(checkpoint)
    for expected in (
        "1 missing: model.layers.1.mlp.up_proj.weight",
        "1 unexpected: model.layers.7.mlp.up_proj.weight",
        "1 wrong shape: model.norm.weight is [31], expected [32]",
        "1 not floating point: lm_head.weight is I8",
    ):
        assert expected in str(refused.value)


def test_long_lists_of_tensors_are_cut(checkpoint):
    edit_config(checkpoint, num_hidden_layers=9)
    with pytest.raises(DataError, match="and 55 more"):
        load_model(checkpoint)


def test_checkpoints_of_the_body_alone_have_shorter_names(their_model, tokens, kind, tmp_path):
    """bigscience/bloom-560m and others were saved from the model without its head."""
    theirs = their_model(kind)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    body = theirs.base_model_prefix + "."
    save_file({name.removeprefix(body): tensor for name, tensor in load_file(path).items()}, path)
    loaded = load_model(tmp_path)
    ids = tokens(1, 20)
    assert (loaded.logits(loaded(ids)) - theirs(ids).logits).abs().max() < 1e-4


@pytest.mark.parametrize("kept", [0, 4, 100, 5000])
def test_truncated_file_is_named(checkpoint, kept):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"model\.safetensors is damaged or cut short"):
        load_model(checkpoint)


def test_pickles_are_not_loaded(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"pickles only \(pytorch_model\.bin\).*convert them to safetensors first"):
        load_model(checkpoint)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files_are_named(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(DataError, match=name):
        load_model(checkpoint)


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_damaged_config_is_named(checkpoint, content):
    (checkpoint / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"config\.json"):
        load_model(checkpoint)


def test_a_shard_missing_or_outside_the_folder_is_refused(their_model, tmp_path):
    their_model("llama-mqa").save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    first = sorted(tmp_path.glob("*.safetensors"))[0]
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"{first.name} is missing"):
        load_model(tmp_path)
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "../../secret.safetensors"}}))
    with pytest.raises(DataError, match="not a file of its own folder"):
        load_model(tmp_path)


def test_a_tensor_in_two_shards_is_refused(their_model, tmp_path):
    their_model("llama-mqa").save_pretrained(tmp_path, max_shard_size="20KB")
    first, second = sorted(tmp_path.glob("*.safetensors"))[:2]
    save_file(load_file(first) | load_file(second), second, metadata={"format": "pt"})
    with pytest.raises(DataError, match="is both in"):
        load_model(tmp_path)


def test_a_stored_head_beside_a_tied_embedding_must_equal_it(their_model, tmp_path):
    their_model("llama-gqa-tied").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    save_file(tensors, path, metadata={"format": "pt"})
    assert load_model(tmp_path).head is None
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lm_head\.weight differs from the embedding"):
        load_model(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_export_that_reads_back_otherwise_is_refused(our_model, tmp_path, monkeypatch, dtype):
    compare = export._compare

    def flip_a_bit(path, *arguments):
        tensors = load_file(path)
        tensors["model.norm.weight"].view(torch.uint8)[0] ^= 1
        save_file(tensors, path, metadata={"format": "pt"})
        compare(path, *arguments)

    monkeypatch.setattr(export, "_compare", flip_a_bit)
    with pytest.raises(AuroraError, match=r"reads back otherwise than the model: model\.norm\.weight"):
        save_model(our_model("llama"), tmp_path, dtype=dtype)
    assert not list(tmp_path.glob("*.safetensors"))


def test_weights_that_are_not_numbers_are_stored_as_they_are(our_model, tmp_path):
    model = our_model("llama")
    torch.nn.init.constant_(model.final_norm.weight, torch.nan)
    save_model(model, tmp_path)
    assert load_model(tmp_path).final_norm.weight.isnan().all()


def test_a_model_its_family_cannot_express_is_not_exported(our_model, tmp_path):
    model = our_model("mistral")
    model.config = model.config.model_copy(update={"qkv_bias": True, "qk_norm": "head"})
    with pytest.raises(AuroraError, match="mistral cannot say that qk_norm is 'head', qkv_bias is True"):
        save_model(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_message(our_model, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_header", fail)
    with pytest.raises(AuroraError, match="No space left on device"):
        save_model(our_model(), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
