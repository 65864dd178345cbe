"""The compiled encoder gives the very ids of the reference, or is not used."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from aurora_m.tokens import SpecialTokens, Tokenizer, bpe
from aurora_m.tokens.encoder import Encoder
from aurora_m.workspace import DataError

from .test_tokenizer import DOMAINS, HOSTILE
from .toy import texts

_EVERY = 16
ALL_TEXTS = [text for domain in DOMAINS for text in texts(domain)]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def byte_level(**options):
    return pre_tokenizers.ByteLevel(**({"add_prefix_space": False} | options))


def split(expression: str, behavior: str = "isolated"):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), behavior), byte_level(use_regex=False)])


def digits():
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])


# What well-known tokenizers declare: pre-tokenizer, normalizer, whether words of the vocabulary are taken whole.
SHIPPED = {
    "gpt2": (byte_level(), None, False),
    "starcoder": (digits(), None, False),
    "llama3": (split(LLAMA3), None, True),
    "qwen2": (split(QWEN2), normalizers.NFC(), False),
    "bloom": (split(BLOOM), None, False),
}


def trained(documents: list[str], pre_tokenizer=None, normalizer=None, whole=False, vocab_size=700):
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=whole))
    backend.pre_tokenizer = pre_tokenizer or byte_level()
    backend.decoder = decoders.ByteLevel()
    if normalizer:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(documents, trainer)
    return backend


def wrap(backend: tokenizers.Tokenizer) -> Tokenizer:
    return Tokenizer(backend, "<|endoftext|>", SpecialTokens(), Path())


def rewritten(backend: tokenizers.Tokenizer, change) -> tokenizers.Tokenizer:
    content = json.loads(backend.to_str())
    change(content)
    return tokenizers.Tokenizer.from_str(json.dumps(content))


@pytest.fixture(scope="module")
def shipped() -> dict[str, Encoder]:
    return {name: Encoder(wrap(trained(ALL_TEXTS, *kind))) for name, kind in SHIPPED.items()}


@pytest.fixture(scope="module")
def like_gpt2() -> Tokenizer:
    return wrap(trained(ALL_TEXTS))


def encode(encoder: Encoder, documents: list[str]) -> list[list[int]]:
    tokens, lengths = encoder.encode(pa.array(documents, pa.large_string()))
    return [part.tolist() for part in np.split(tokens, np.cumsum(lengths)[:-1])] if documents else []


def assert_same_ids(encoder: Encoder, documents: list[str]) -> None:
    assert (encoder.name, encoder.reason) == ("compiled", None)
    tokenizer = encoder.tokenizer
    expected = [[*ids, tokenizer.eod_id] for ids in tokenizer.encode_batch(documents)]
    assert encode(encoder, documents) == expected


hostile_text = st.text(
    alphabet=st.one_of(
        st.characters(codec="utf-8"),
        st.characters(categories=["L", "N", "Z", "M"]),
        st.sampled_from(" \n\r\t'sSdlLvVeEtTmM0123٣½ab日本é()|,.!?。ſ\u00a0\u0085\u3000\u0301\u093c\x1c"),
    )
)


@pytest.mark.parametrize("kind", SHIPPED)
@settings(max_examples=300, deadline=None)
@given(documents=st.lists(hostile_text, max_size=4))
def test_ids_are_those_of_the_reference(shipped, kind, documents):
    assert_same_ids(shipped[kind], documents)


@pytest.mark.parametrize("kind", SHIPPED)
def test_ids_are_those_of_the_reference_on_the_domains(shipped, kind):
    assert_same_ids(shipped[kind], [*ALL_TEXTS, HOSTILE, "", " ", "\n", "'", "'S"])


@pytest.mark.parametrize("kind", SHIPPED)
def test_every_character_is_of_the_class_the_reference_gives_it(shipped, kind):
    """Each code point between a letter, a digit, a space, a line break and itself."""
    planes = [*range(0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xE0200), *range(0xF0000, 0xF0100), 0x10FFFF]
    step = 256
    assert_same_ids(
        shipped[kind],
        [
            "".join(f"a{chr(c)}1{chr(c)} {chr(c)}{chr(c)}\n" for c in planes[at : at + step])
            for at in range(0, len(planes), 16 * step)
        ],
    )


def test_special_tokens_in_a_text_stay_text(shipped):
    (document,) = encode(shipped["starcoder"], ["a<|endoftext|>b"])
    assert document.count(shipped["starcoder"].tokenizer.eod_id) == 1


@pytest.mark.parametrize("kind", SHIPPED)
@pytest.mark.parametrize("text", [" " * 300_000 + "1", "\n" * 300_000 + "x", "a" * 300_000, "日本" * 50_000, "ab" * 99])
def test_pieces_of_any_length_are_merged_alike(shipped, kind, text):
    # tokenizers' regular expressions need minutes for a megabyte of white space, ours do not.
    assert_same_ids(shipped[kind], [text, "after it"])


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    cache_bits=st.sampled_from([2, 4, 16]),
    spilled=st.sampled_from([32, 1000]),
    whole=st.booleans(),
)
def test_any_merges_any_cache(seed, cache_bits, spilled, whole):
    """Merges that no training would make: pairs in any order, tokens with several ways to them, few letters."""
    rng = np.random.default_rng(seed)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary, merges = {letter: number for number, letter in enumerate(alphabet)}, []
    names = ["a", "b", "c", "Ġ"]
    for _ in range(60):
        left, right = (names[number] for number in rng.integers(0, len(names), 2))
        if len(left + right) < 12 and (left, right) not in merges:
            merges.append((left, right))
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                names.append(left + right)
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole))
    backend.pre_tokenizer = byte_level()
    backend.add_special_tokens(["<|endoftext|>"])
    documents = ["".join(rng.choice(list("aabbc "), rng.integers(0, 400))) for _ in range(20)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "_CACHE_BITS", cache_bits)
        patch.setattr(bpe, "_SPILLED_IDS", spilled)
        assert_same_ids(Encoder(wrap(backend)), [*documents, *documents[::-1]])


def test_ids_in_another_order_than_the_merges_are_mapped(like_gpt2):
    def reverse(content):
        names = list(content["model"]["vocab"])
        content["model"]["vocab"] = {"<|endoftext|>": 0} | {name: n for n, name in enumerate(reversed(names[1:]), 1)}

    assert_same_ids(Encoder(wrap(rewritten(like_gpt2.backend, reverse))), ALL_TEXTS)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_documents_with_an_added_token_go_to_the_reference(shipped, kind):
    backend = rewritten(shipped[kind].tokenizer.backend, lambda content: None)
    backend.add_tokens(["(x|y)  "])
    encoder, added = Encoder(wrap(backend)), backend.token_to_id("(x|y)  ")
    documents = ["one (x|y)  two", "(x|y) three", "", "four (x|y)  (x|y)  ", "e\u0301 five"]
    assert_same_ids(encoder, documents)
    assert [document.count(added) for document in encode(encoder, documents)] == [1, 0, 0, 2, 0]


def test_slices_of_an_array_are_read_at_their_place(shipped):
    whole = pa.array(ALL_TEXTS[:9], pa.large_string())
    tokens, lengths = shipped["starcoder"].encode(whole.slice(3, 4))
    expected = encode(shipped["starcoder"], ALL_TEXTS[3:7])
    assert tokens.tolist() == [id for document in expected for id in document]
    assert lengths.tolist() == [len(document) for document in expected]


def test_no_documents_at_all(shipped):
    tokens, lengths = shipped["gpt2"].encode(pa.array([], pa.large_string()))
    assert (len(tokens), len(lengths)) == (0, 0)


def test_bytes_that_are_no_text_are_refused(shipped):
    damaged = pa.Array.from_buffers(
        pa.large_string(), 1, [None, pa.py_buffer(np.array([0, 2])), pa.py_buffer(b"a\xff")]
    )
    with pytest.raises(DataError, match="no valid UTF-8"):
        shipped["gpt2"].encode(damaged)


def _lowercase(content):
    content["normalizer"] = {"type": "Lowercase"}


def _lose_a_byte(content):
    del content["model"]["vocab"]["ÿ"]


def _drop_out(content):
    content["model"]["dropout"] = 0.5


def _unknown_expression(content):
    content["pre_tokenizer"] = json.loads(rewritten_split("[a-z]+").to_str())["pre_tokenizer"]


def _removed(content):
    content["pre_tokenizer"] = json.loads(rewritten_split(LLAMA3, "removed").to_str())["pre_tokenizer"]


def _prefix_space(content):
    content["pre_tokenizer"]["add_prefix_space"] = True


def _no_expression(content):
    content["pre_tokenizer"]["use_regex"] = False


def _digits_together(content):
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": False}, content["pre_tokenizer"]],
    }


def _nothing(content):
    content["pre_tokenizer"] = None


def rewritten_split(*options) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = split(*options)
    return backend


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_lowercase, "a normalizer not known here: Lowercase"),
        (_lose_a_byte, "lacks 1 of the 256 bytes"),
        (_drop_out, "its model has dropout"),
        (_unknown_expression, r"an expression not known here: '\[a-z\]\+'"),
        (_removed, r"\(Split, ByteLevel\) is none of those known"),
        (_prefix_space, "a space before the text"),
        (_no_expression, r"\(ByteLevel\) is none of those known"),
        (_digits_together, r"\(Digits, ByteLevel\) is none of those known"),
        (_nothing, r"\(none\) does not end in ByteLevel"),
    ],
)
def test_a_tokenizer_of_another_kind_is_left_to_the_reference_and_the_reason_told(like_gpt2, change, reason):
    tokenizer = wrap(rewritten(like_gpt2.backend, change))
    encoder = Encoder(tokenizer, ALL_TEXTS)
    assert encoder.name == "tokenizers"
    assert encoder.reason and re.search(reason, encoder.reason)
    (document,) = encode(encoder, ["Some    text"])
    if change is not _drop_out:
        assert document == [*tokenizer.encode("Some    text"), tokenizer.eod_id]


def test_a_model_that_is_no_bpe_is_left_to_the_reference():
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "<|endoftext|>": 1}, unk_token="a"))
    backend.add_special_tokens(["<|endoftext|>"])
    assert "no BPE but WordLevel" in str(Encoder(wrap(backend)).reason)


def test_disagreement_on_a_sample_rules_the_compiled_one_out(monkeypatch):
    from aurora_m.tokens import encoder

    tokenizer = wrap(trained(ALL_TEXTS, digits()))
    monkeypatch.setattr(encoder, "HOSTILE", ())
    monkeypatch.setattr(encoder, "known_pattern", lambda _: pattern_of("gpt2"))
    assert Encoder(tokenizer, ["no digits"]).name == "compiled"
    reason = Encoder(tokenizer, ["no digits", "call 911  22 now"]).reason
    assert reason == "its ids are not those of tokenizers on a sample that begins 'call 911  22 now'"


def pattern_of(kind: str):
    from aurora_m.tokens.pretokens import known_pattern

    return known_pattern(json.loads(trained(["a"], SHIPPED[kind][0]).to_str())["pre_tokenizer"])


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("kind", SHIPPED)
def test_ids_are_those_of_the_reference_on_the_real_corpora(shared_data, kind):
    """Every 16th document, and every one with _EVERY = 1 (two minutes a kind); the benchmark compares all of them."""
    corpora = sorted((shared_data / "corpus").glob("*.jsonl.zst"))
    sample = [text for path in corpora for _, text in zip(range(60), _texts(path), strict=False)]
    encoder = Encoder(wrap(trained(sample, *SHIPPED[kind], vocab_size=16_384)))
    for path in corpora:
        batch: list[str] = []
        for number, text in enumerate(_texts(path)):
            if number % _EVERY:
                continue
            batch.append(text)
            if len(batch) == 64:
                assert_same_ids(encoder, batch)
                batch.clear()
        assert_same_ids(encoder, batch)


def _texts(path: Path):
    with path.open("rb") as file:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8"):
            yield json.loads(line)["text"]
