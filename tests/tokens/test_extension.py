"""Extended tokenizers: old text keeps its old ids, new ids come last, and every encoder agrees on them."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aurora_m.tokens import SpecialTokens, TokenizerConfig, TokenizerExtendConfig
from aurora_m.tokens.encoder import Encoder
from aurora_m.tokens.extension import Extension, extend_tokenizer
from aurora_m.tokens.tokenizer import import_tokenizer, load_tokenizer
from aurora_m.workspace import DataError, Progress

from .test_encoder import SHIPPED, trained
from .test_tokenizer import HOSTILE
from .toy import texts, write_curated

QUIET = Progress(quiet=True)
OLD_DOMAINS, NEW_DOMAINS = ["english", "code"], ["finnish", "hindi", "japanese"]


@pytest.fixture(scope="module")
def curated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curated")
    for domain in OLD_DOMAINS + NEW_DOMAINS:
        write_curated(folder, domain, texts(domain))
    return folder


def old_folder(folder: Path, kind: str = "starcoder", change=None) -> Path:
    """A tokenizer of English and code; with added tokens after its vocabulary, and ids left free before them."""
    pre_tokenizer, normalizer, whole = SHIPPED[kind]
    documents = [text for domain in OLD_DOMAINS for text in texts(domain)]
    backend = trained(documents, pre_tokenizer, normalizer, whole, vocab_size=400)
    backend.add_special_tokens(["<|im_end|>"])
    backend.add_tokens(["<tool>"])
    content = json.loads(backend.to_str())
    folder.mkdir(parents=True, exist_ok=True)
    if change:
        change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def extend(folder: Path, out: Path, curated: Path, **options) -> Extension:
    config = TokenizerExtendConfig.model_validate({"domains": NEW_DOMAINS, "new_tokens": 120} | options)
    old = import_tokenizer(folder, SpecialTokens(), out / "old")
    return extend_tokenizer(config, SpecialTokens(), old, curated, out / "new", seed=1, progress=QUIET)


@pytest.fixture(scope="module", params=[*SHIPPED])
def extension(request, curated, tmp_path_factory) -> Extension:
    folder = tmp_path_factory.mktemp(request.param)
    return extend(old_folder(folder / "given", request.param), folder, curated)


def test_new_ids_follow_all_old_ones(extension):
    old, new = (one.backend.get_vocab(with_added_tokens=True) for one in (extension.old, extension.tokenizer))
    assert all(new[name] == id for name, id in old.items())
    assert sorted(set(new.values()) - set(old.values())) == list(range(extension.old.vocab_size, len(old) + 120))
    assert extension.tokenizer.vocab_size == extension.old.vocab_size + 120 == len(new)
    assert extension.tokenizer.eod_id == extension.old.eod_id


@settings(max_examples=100, deadline=None)
@given(text=st.one_of(st.text(), st.text(alphabet="ab नहीं森の' é1\n", max_size=60)))
def test_a_text_keeps_its_old_ids_once_new_tokens_are_taken_apart(extension, text):
    ids = extension.tokenizer.encode(text)
    assert extension.taken_apart(ids) == extension.old.encode(text)
    assert extension.tokenizer.decode(ids) == extension.old.decode(extension.old.encode(text))


def test_new_text_is_shorter_and_a_text_without_new_tokens_unchanged(extension):
    for domain in OLD_DOMAINS + NEW_DOMAINS:
        for text in texts(domain, 20, seed=5):
            before, after = extension.old.encode(text), extension.tokenizer.encode(text)
            assert (after == before) == (max(after) < extension.first_new_id)
            if domain in NEW_DOMAINS and len(text) > 40:
                assert len(after) < 0.7 * len(before)


def test_every_encoder_gives_the_same_ids(extension):
    encoder = Encoder(extension.tokenizer)
    assert encoder.name == "compiled", encoder.reason
    documents = [text for domain in OLD_DOMAINS + NEW_DOMAINS for text in texts(domain, 20, seed=6)]
    documents += [HOSTILE, "a<tool>b", "<|im_end|>"]
    encoded = encoder.encode(pa.array(documents, pa.large_string()))
    ours = np.split(encoded.tokens, np.cumsum(encoded.lengths)[:-1])
    assert [one.tolist()[:-1] for one in ours] == extension.tokenizer.encode_batch(documents)


def test_transformers_loads_it_and_agrees(extension):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(extension.tokenizer.folder)
    assert len(theirs) == extension.tokenizer.vocab_size
    for text in [*texts("hindi", 5), *texts("code", 5), "  a  12\n\n b "]:
        assert theirs.encode(text) == extension.tokenizer.encode(text)


def test_extending_twice_gives_the_same_file_and_an_extended_one_can_be_extended(curated, tmp_path):
    folder = old_folder(tmp_path / "given")
    first, again = (extend(folder, tmp_path / name, curated, new_tokens=30) for name in ("first", "again"))
    name = "tokenizer.json"
    assert (first.tokenizer.folder / name).read_bytes() == (again.tokenizer.folder / name).read_bytes()
    further = extend(first.tokenizer.folder, tmp_path / "further", curated, new_tokens=5)
    assert further.first_new_id == first.tokenizer.vocab_size
    assert load_tokenizer(further.tokenizer.folder).vocab_size == first.tokenizer.vocab_size + 5


def test_a_tokenizer_the_compiled_loops_do_not_know_is_extended_all_the_same(curated, tmp_path):
    def strange(content):
        content["normalizer"] = {"type": "Lowercase"}

    extension = extend(old_folder(tmp_path / "given", change=strange), tmp_path, curated)
    assert Encoder(extension.old).compiled is None
    assert extension.tokenizer.vocab_size == extension.old.vocab_size + 120
    for text in texts("hindi", 10):
        assert extension.taken_apart(extension.tokenizer.encode(text)) == extension.old.encode(text)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dropout": 0.1}, "its model has dropout"),
        ({"byte_fallback": True}, "its model has byte_fallback"),
        (
            {"type": "WordPiece", "unk_token": "x", "max_input_chars_per_word": 9, "continuing_subword_prefix": "##"},
            "its model is WordPiece",
        ),
    ],
)
def test_what_cannot_be_extended_is_refused(curated, tmp_path, change, why):
    def changed(content):
        content["model"] |= change
        if change.get("type"):
            del content["model"]["merges"]

    with pytest.raises(DataError, match=f"cannot be extended: {why}"):
        extend(old_folder(tmp_path / "given", change=changed), tmp_path, curated)


def test_a_domain_without_documents_is_refused(curated, tmp_path):
    with pytest.raises(DataError, match=r"tokenizer\.extend\.domains names 'klingon'"):
        extend(old_folder(tmp_path / "given"), tmp_path, curated, domains=["klingon"])


def test_a_sample_too_small_says_so(tmp_path, capsys):
    write_curated(tmp_path, "code", ["xyzw xyzw"])
    old = import_tokenizer(old_folder(tmp_path / "given"), SpecialTokens(), tmp_path / "old")
    config = TokenizerExtendConfig(domains=["code"], new_tokens=100)
    extension = extend_tokenizer(config, SpecialTokens(), old, tmp_path, tmp_path / "new", seed=1, progress=Progress())
    assert 0 < len(extension.parts) < 10
    assert "the sample has no more pairs" in capsys.readouterr().out


def test_train_and_extend_exclude_each_other():
    extend = {"domains": ["a"], "new_tokens": 5}
    with pytest.raises(ValidationError, match="both train and extend"):
        TokenizerConfig.model_validate({"train": {"vocab_size": "8K", "domains": ["a"]}, "extend": extend})
    with pytest.raises(ValidationError, match="named twice"):
        TokenizerConfig.model_validate({"extend": extend | {"domains": ["a", "a"]}})
    TokenizerConfig.model_validate({"path": "x", "extend": extend})


@pytest.mark.real_data
def test_real_text_keeps_its_old_ids(tmp_path):
    corpus = Path("../shared/data/corpus")
    if not corpus.is_dir():
        pytest.skip("no ../shared/data/corpus beside the checkout")
    documents = {name: _first_documents(corpus / f"{name}.jsonl.zst") for name in ("en", "code", "hi", "ja")}
    for name in ("hi", "ja"):
        write_curated(tmp_path / "curated", name, documents[name][::2])
    backend = trained(documents["en"] + documents["code"], SHIPPED["starcoder"][0], vocab_size=2000)
    (tmp_path / "given").mkdir()
    backend.save(str(tmp_path / "given" / "tokenizer.json"))
    extension = extend(tmp_path / "given", tmp_path, tmp_path / "curated", domains=["hi", "ja"], new_tokens=800)
    share = {}
    for name, kept in documents.items():
        before, after = (one.encode_batch(kept[1::2]) for one in (extension.old, extension.tokenizer))
        assert [extension.taken_apart(ids) for ids in after] == before
        share[name] = sum(map(len, after)) / sum(map(len, before))
    assert share["en"] > 0.99
    assert share["hi"] < 0.5 > share["ja"]


def _first_documents(path: Path, limit: int = 500_000) -> list[str]:
    found, size = [], 0
    with path.open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            found.append(json.loads(line)["text"])
            size += len(found[-1].encode())
            if size > limit:
                return found
    return found
