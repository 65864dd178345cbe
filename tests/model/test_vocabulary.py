"""A larger vocabulary: old rows and all else to the last bit, new rows as asked, for every kind of checkpoint."""

import pytest
import torch
from tests.model.conftest import KINDS

from aurora_m.model import load_model, resize_vocabulary, save_model, write_with_new_rows
from aurora_m.workspace import DataError

CHOSEN = ["gpt_bigcode-mqa", "gpt_bigcode-untied", "bloom", "llama-gqa-untied", "llama-gqa-tied", "starcoder2-window"]


def small(which: str, seed: int = 0):
    """transformers' own model of a kind, with random weights, as a folder's worth of tensors."""
    import transformers

    torch.manual_seed(seed)
    config_class, values = KINDS[which]
    config = config_class(vocab_size=97, **values)
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.fixture
def tokenizer_folder(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    return tmp_path / "tokenizer"


def doubled(name, old):
    return 2 * old[:9] if "head" in name else 3 * old[:9]


@pytest.mark.parametrize("which", CHOSEN)
def test_all_but_new_rows_is_the_base_to_the_last_bit(which, tmp_path, tokenizer_folder):
    small(which).save_pretrained(tmp_path / "base")
    base = load_model(tmp_path / "base")
    grown = write_with_new_rows(tmp_path / "base", tmp_path / "grown", 106, doubled, 97, tokenizer_folder, 0)
    model = load_model(tmp_path / "grown")
    assert (grown.vocab_size, model.config.vocab_size) == (106, 106)
    before, after = dict(base.named_parameters()), dict(model.named_parameters())
    assert before.keys() == after.keys()
    for name in before:
        if name in ("embed_tokens.weight", "head.weight"):
            assert torch.equal(after[name][:97], before[name])
            assert torch.equal(after[name][97:], doubled(name, before[name]))
        else:
            assert torch.equal(after[name], before[name]), name
    ids = torch.arange(40)[None]
    with torch.no_grad():
        # Another number of rows is another order of summing.
        assert (base.logits(base(ids)) - model.logits(model(ids))[..., :97]).abs().max() < 1e-5


@pytest.mark.parametrize(("first_new", "asked", "size"), [(80, 89, 97), (80, 130, 130)])
def test_a_padded_base_keeps_its_size_or_grows(first_new, asked, size, tmp_path, tokenizer_folder):
    small("llama-gqa-untied").save_pretrained(tmp_path / "base")
    base = load_model(tmp_path / "base")

    def new(name, old):
        assert len(old) == first_new
        return torch.full((asked - first_new, 32), 7.0)

    write_with_new_rows(tmp_path / "base", tmp_path / "grown", asked, new, first_new, tokenizer_folder, 0)
    rows = load_model(tmp_path / "grown").embed_tokens.weight
    assert len(rows) == size
    assert torch.equal(rows[:first_new], base.embed_tokens.weight[:first_new])
    assert (rows[first_new:asked] == 7).all()
    assert torch.equal(rows[asked:97], base.embed_tokens.weight[asked:97])


def test_several_files_and_bfloat16_stay_what_they_are(tmp_path, tokenizer_folder):
    small("bloom").to(torch.bfloat16).save_pretrained(tmp_path / "base", max_shard_size="30KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    write_with_new_rows(tmp_path / "base", tmp_path / "grown", 106, doubled, 97, tokenizer_folder, 0)
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "grown" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert len(stored["transformer.word_embeddings.weight"]) == 106


def test_a_tokenizer_larger_than_the_base_is_refused(tmp_path, tokenizer_folder):
    small("bloom").save_pretrained(tmp_path / "base")
    with pytest.raises(DataError, match="has 97 tokens and the tokenizer that is extended 98"):
        write_with_new_rows(tmp_path / "base", tmp_path / "grown", 120, doubled, 98, tokenizer_folder, 0)


def test_it_is_what_resizing_in_memory_gives(tmp_path, tokenizer_folder):
    small("bloom").save_pretrained(tmp_path / "base")
    resized = load_model(tmp_path / "base")
    resize_vocabulary(resized, 106)
    save_model(resized, tmp_path / "resized", tokenizer_folder, eod_id=0)

    def mean(name, old):
        return old.mean(dim=0).expand(9, -1)

    write_with_new_rows(tmp_path / "base", tmp_path / "grown", 106, mean, 97, tokenizer_folder, 0)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "grown" / name).read_bytes() == (tmp_path / "resized" / name).read_bytes()
