"""The tokenizer: exact round trips, text that looks special stays text, transformers agrees, bad ones are refused."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aurora_m.tokens import SpecialTokens, Tokenizer, TokenizerConfig, TokenizerTrainConfig, load_tokenizer
from aurora_m.tokens.tokenizer import import_tokenizer, train_tokenizer
from aurora_m.workspace import DataError, Progress, RecipeError

from .toy import texts, write_curated

QUIET = Progress(quiet=True)
DOMAINS = ["english", "finnish", "hindi", "japanese", "code"]
HOSTILE = "x<|endoftext|>y<fim_prefix>\n\n  a  1 23٣ \t'S's \u0085\u00a0\u200b\u3000é e\u0301 👩‍👩‍👧 \x00\x01 <fim_pad>"


def train(curated: Path, out: Path, **options) -> Tokenizer:
    config = TokenizerTrainConfig(**({"vocab_size": 500, "domains": DOMAINS} | options))
    return train_tokenizer(config, SpecialTokens(), curated, out, seed=1, progress=QUIET)


@pytest.fixture(scope="module")
def curated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curated")
    for domain in DOMAINS:
        write_curated(folder, domain, texts(domain))
    return folder


@pytest.fixture(scope="module")
def tokenizer(curated, tmp_path_factory) -> Tokenizer:
    return train(curated, tmp_path_factory.mktemp("tokenizer"))


def change(folder: Path, file: str, **changes) -> None:
    path = folder / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


@settings(max_examples=150, deadline=None)
@given(text=st.text())
def test_every_text_comes_back_exactly(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_spelled_out_in_a_text_stay_text(tokenizer):
    ids = tokenizer.encode(HOSTILE)
    assert not set(ids) & {0, 1, 2, 3, 4}
    assert tokenizer.decode(ids) == HOSTILE
    assert tokenizer.encode_batch([HOSTILE]) == [ids]


def test_the_special_tokens_come_first_in_a_trained_one(tokenizer):
    assert (tokenizer.eod, tokenizer.eod_id, tokenizer.vocab_size) == ("<|endoftext|>", 0, 500)
    assert tokenizer.fim == {"prefix": 1, "middle": 2, "suffix": 3}


def test_digits_stand_alone(tokenizer):
    assert [tokenizer.decode([id]) for id in tokenizer.encode("2024")] == ["2", "0", "2", "4"]


def test_training_twice_gives_the_same_file(curated, tokenizer, tmp_path):
    train(curated, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tokenizer.folder / name).read_bytes()


def test_transformers_loads_it_and_agrees(tokenizer):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tokenizer.folder)
    assert (len(theirs), theirs.eos_token, theirs.eos_token_id) == (500, "<|endoftext|>", 0)
    for text in [*texts("hindi", 5), *texts("code", 5), "  a  12\n\n b "]:
        assert theirs.encode(text) == tokenizer.encode(text)
        assert theirs.decode(theirs.encode(text)) == text


def test_the_sample_is_drawn_over_all_files_and_bounded(tmp_path):
    from aurora_m.tokens.sample import sample_documents

    for part in range(4):
        write_curated(tmp_path, "code", [f"{part}{n:099}" for n in range(200)], part=part)
    taken = list(sample_documents(tmp_path, "code", 8_000, 1, "key"))
    assert 7_000 <= sum(map(len, taken)) < 8_100
    assert {text[0] for text in taken} == {"0", "1", "2", "3"}
    assert (
        taken
        == list(sample_documents(tmp_path, "code", 8_000, 1, "key"))
        != list(sample_documents(tmp_path, "code", 8_000, 2, "key"))
    )
    assert len(list(sample_documents(tmp_path, "code", 10**9, 1, "key"))) == 800


def test_a_word_beyond_reason_does_not_stop_training(tmp_path):
    import random

    write_curated(tmp_path, "code", ["".join(random.Random(0).choices("ACGT", k=400_000)), *texts("code")])
    started = time.monotonic()
    train(tmp_path, tmp_path / "out", domains=["code"], vocab_size=2000)
    assert time.monotonic() - started < 20  # uncut, more than a minute


def test_a_sample_too_small_for_the_vocabulary_says_so(tmp_path, capsys):
    write_curated(tmp_path, "code", ["ab"])
    config = TokenizerTrainConfig(vocab_size=1000, domains=["code"])
    small = train_tokenizer(config, SpecialTokens(), tmp_path, tmp_path / "out", seed=1, progress=Progress())
    assert small.vocab_size == 262
    assert "the sample has no more pairs" in capsys.readouterr().out


def test_a_domain_without_documents_is_refused(curated, tmp_path):
    with pytest.raises(DataError, match="names 'klingon', which has no curated documents"):
        train(curated, tmp_path, domains=["code", "klingon"])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"train": {"vocab_size": 260, "domains": ["a"]}}, "vocab_size 260 is too small.* need 261"),
        ({"train": {"vocab_size": "8K", "domains": ["a", "a"]}}, r"\['a'\] are named twice"),
        ({"train": {"vocab_size": "8K", "domains": ["a"]}, "path": "x"}, "both train and path"),
        ({"special": {"eod": "<fim_pad>"}}, "five different"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(recipe, message):
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig.model_validate(recipe)


@pytest.mark.parametrize("as_file", [False, True])
def test_a_folder_or_a_file_can_be_imported(tokenizer, tmp_path, as_file):
    path = tokenizer.folder / "tokenizer.json" if as_file else tokenizer.folder
    imported = import_tokenizer(path, SpecialTokens(), tmp_path / "out")
    assert imported.encode(HOSTILE) == tokenizer.encode(HOSTILE)
    assert (imported.eod_id, imported.fim) == (tokenizer.eod_id, tokenizer.fim)
    assert load_tokenizer(tmp_path / "out").eod_id == tokenizer.eod_id


@pytest.fixture
def foreign(tokenizer, tmp_path) -> Path:
    """A tokenizer as others publish it: other names, ordinary added tokens, truncation on, code of their own."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    content = (tokenizer.folder / "tokenizer.json").read_text().replace("<|endoftext|>", "</s>")
    content = content.replace("<fim_prefix>", "<PRE>").replace('"special": true', '"special": false')
    (folder / "tokenizer.json").write_text(content)
    change(
        folder,
        "tokenizer.json",
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    )
    change(folder, "special_tokens_map.json", eos_token={"content": "</s>", "lstrip": False})
    change(
        folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.py", None]}, tokenizer_class="GPT2Tokenizer"
    )
    return folder


def test_a_foreign_tokenizer_uses_its_own_end_of_sequence(foreign, tmp_path):
    imported = import_tokenizer(foreign, SpecialTokens(), tmp_path / "out")
    assert (imported.eod, imported.eod_id, imported.fim) == ("</s>", 0, None)
    assert 0 not in imported.encode("a</s>b")
    assert len(imported.encode("a longer text than four tokens")) > 4
    again = load_tokenizer(tmp_path / "out")
    assert (again.eod, again.eod_id) == ("</s>", 0)


def test_a_foreign_tokenizer_keeps_its_digits_in_transformers_and_brings_no_code(foreign, tmp_path):
    from transformers import AutoTokenizer

    imported = import_tokenizer(foreign, SpecialTokens(), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert "auto_map" not in config
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.encode("  x 2024 3") == imported.encode("  x 2024 3")


def test_named_special_tokens_win(foreign, tmp_path):
    special = SpecialTokens(eod="<fim_pad>", fim_prefix="<PRE>", fim_pad="<none>")
    imported = import_tokenizer(foreign, special, tmp_path / "out")
    assert (imported.eod_id, imported.fim) == (4, {"prefix": 1, "middle": 2, "suffix": 3})
    assert load_tokenizer(tmp_path / "out").eod_id == 4


def test_a_tokenizer_without_an_end_is_refused(foreign, tmp_path):
    (foreign / "special_tokens_map.json").unlink()
    with pytest.raises(DataError, match=r"has none of \['<\|endoftext\|>'\] to mark the end of a document"):
        import_tokenizer(foreign, SpecialTokens(), tmp_path / "out")


def test_a_base_without_fast_tokenizer_is_refused(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "vocab.json").write_text("{}")
    with pytest.raises(DataError, match="base has no tokenizer.json"):
        import_tokenizer(tmp_path / "base", SpecialTokens(), tmp_path / "out")


def test_a_damaged_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(DataError, match="is no valid tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all"])
def test_a_path_that_does_not_exist_is_refused(path, tmp_path):
    with pytest.raises(RecipeError, match="does not exist"):
        import_tokenizer(path, SpecialTokens(), tmp_path)


def test_a_hugging_face_id_that_cannot_be_fetched_is_refused(tmp_path, monkeypatch):
    import huggingface_hub

    def refuse(*_args, **_options):
        raise OSError("offline\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(RecipeError, match="could not be fetched from Hugging Face: offline$"):
        import_tokenizer("bigcode/starcoderplus", SpecialTokens(), tmp_path)


def test_a_hugging_face_id_is_fetched_without_weights_or_code(tokenizer, tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    def fetch(address, allow_patterns):
        asked.update(address=address, patterns=allow_patterns)
        return str(tokenizer.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert import_tokenizer("bigcode/starcoderplus", SpecialTokens(), tmp_path).eod_id == 0
    assert asked["address"] == "bigcode/starcoderplus"
    assert all(name.endswith((".json", ".jinja")) for name in asked["patterns"])
