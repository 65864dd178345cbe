"""The bundled samples: what the quickstart learns from, and the dirt that curation is to find in it."""

import itertools
import json
import re
import unicodedata
from functools import cache
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
LETTERS = {
    "en": r"[a-z]",
    "fi": r"[a-zäöåšž]",
    "hi": r"[\u0900-\u097f]",
    "ja": r"[\u3040-\u30ff\u4e00-\u9fff々〆]",
    "vi": r"[a-zđàáảãạăằắẳẵặâầấẩẫậèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữựỳýỷỹỵ]",
}
# What shows that a text is in this language and not merely in its script.
MARKS = {
    "en": r"\b(?:the|and|of|to|that|it)\b",
    "fi": r"\b(?:ja|on|ei|oli|että|kun|se|hän)\b|[äö]",
    "hi": r"(?:है|हैं|था|थी|और|के|में|का|को|से|पर)(?![\u0900-\u097f])",
    "ja": r"[\u3041-\u3096]",
    "vi": r"[đăơưạảấầẩẫậắằẳặẻẽẹếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]",
}
LANGUAGES = tuple(LETTERS)
DIRT = {
    "exact_copy": 3,
    "near_copy": 3,
    "boilerplate": 3,
    "wrong_language": 3,
    "personal_data": 3,
    "gibberish": 3,
    "unnormalised": 1,
    "tiny": 1,
}


@cache
def read(name: str) -> tuple[dict, ...]:
    with (SAMPLES / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return tuple(json.loads(line) for line in lines)


def dirty(lang: str, kind: str) -> list[dict]:
    return [record for record in read(f"{lang}-dirty") if record["meta"]["dirt"] == kind]


def shingles(text: str, lang: str) -> set[tuple[str, ...]]:
    """Sets of five words in a row; of five characters where words are not written apart."""
    words = list(re.sub(r"\s", "", text)) if lang == "ja" else text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


def share(pattern: str, text: str) -> float:
    """Of the letters (with their vowel signs), how many match `pattern`."""
    letters = [char for char in text.lower() if unicodedata.category(char)[0] in "LM"]
    return sum(bool(re.match(pattern, char)) for char in letters) / max(1, len(letters))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_record_names_text_language_source_and_licence(lang):
    for record in read(lang) + read(f"{lang}-dirty"):
        assert isinstance(record["text"], str) and record["text"]
        assert (record["lang"], record["source"], record["license"]) == (lang, "aurora-m-samples", "Apache-2.0")
    assert not any("meta" in record for record in read(lang))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_there_is_enough_clean_prose(lang):
    texts = [record["text"] for record in read(lang)]
    assert len(texts) >= 45
    assert sum(len(text.encode()) for text in texts) >= 30_000
    shortest, longest = (200, 500) if lang == "ja" else (450, 1100)
    assert all(shortest <= len(text) <= longest for text in texts)
    assert all(text == unicodedata.normalize("NFC", text).strip() for text in texts)


def test_ids_are_unique():
    ids = [record["id"] for lang in LANGUAGES for name in (lang, f"{lang}-dirty") for record in read(name)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_clean_document_is_a_near_copy_of_another(lang):
    sets = [(record["id"], shingles(record["text"], lang)) for record in read(lang)]
    for (id_a, a), (id_b, b) in itertools.combinations(sets, 2):
        assert jaccard(a, b) < 0.3, f"{id_a} and {id_b} are near copies"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_clean_documents_are_in_the_script_and_language_they_claim(lang):
    for record in read(lang):
        assert share(LETTERS[lang], record["text"]) > 0.95, record["id"]
        assert len(re.findall(MARKS[lang], record["text"].lower())) >= 10, record["id"]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("kind", DIRT)
def test_every_kind_of_dirt_is_there(lang, kind):
    assert len(dirty(lang, kind)) >= DIRT[kind]
    assert {record["meta"]["dirt"] for record in read(f"{lang}-dirty")} == set(DIRT)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_copies_are_as_near_to_the_original_as_they_claim(lang):
    originals = {record["id"]: record["text"] for record in read(lang)}
    for record in dirty(lang, "exact_copy"):
        assert record["text"] == originals[record["meta"]["of"]]
    for record in dirty(lang, "near_copy"):
        original = originals[record["meta"]["of"]]
        assert 0.8 <= jaccard(shingles(record["text"], lang), shingles(original, lang)) < 1, record["id"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_boilerplate_documents_share_header_and_footer_around_prose_of_their_own(lang):
    lines = [record["text"].splitlines() for record in dirty(lang, "boilerplate")]
    assert all(each[:3] == lines[0][:3] and each[-3:] == lines[0][-3:] for each in lines)
    assert len({tuple(each[3:-3]) for each in lines}) == len(lines)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_documents_in_the_wrong_language_lack_the_marks_of_the_claimed_one(lang):
    for record in dirty(lang, "wrong_language"):
        words = len(record["text"]) if lang == "ja" else len(record["text"].split())
        marks = len(re.findall(MARKS[lang], record["text"].lower()))
        limit = 0.35 if lang == "fi" else 0.05  # Swedish and German have ä and ö too
        assert record["meta"]["actual"] != lang and marks < limit * words, record["id"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_personal_data_is_invented_and_of_every_kind(lang):
    kinds = set()
    for record in dirty(lang, "personal_data"):
        text, contains = record["text"], record["meta"]["contains"]
        kinds |= set(contains)
        mails = re.findall(r"[a-z.]+@([a-z.]+[a-z])", text)
        addresses = re.findall(r"\d+\.\d+\.\d+\.\d+", text)
        assert len(mails) == contains.get("email", 0) and set(mails) <= {"example.org", "example.com"}
        assert len(addresses) == contains.get("ip", 0)
        assert all(re.match(r"192\.0\.2\.|198\.51\.100\.|203\.0\.113\.", address) for address in addresses)
        assert text.count("AKIAIOSFODNN7EXAMPLE") == contains.get("key", 0)
    assert kinds == {"email", "phone", "ip", "key"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_unnormalised_document_holds_what_normalising_must_repair(lang):
    (record,) = dirty(lang, "unnormalised")
    text = record["text"]
    assert text != unicodedata.normalize("NFC", text)
    assert "\x00" in text and "\r\n" in text and "\u200b" in text and text.startswith("\ufeff")


def test_the_readme_counts_what_is_there():
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    for lang in LANGUAGES:
        texts = [record["text"] for record in read(lang)]
        size = sum(len(text.encode()) for text in texts)
        row = f"| {lang} | {len(texts)} | {sum(map(len, texts)):,} | {size:,} | {len(read(f'{lang}-dirty'))} |"
        assert row in readme, f"samples/README.md should have the row {row}"
