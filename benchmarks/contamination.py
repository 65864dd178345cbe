"""Evaluation texts and boilerplate in the real corpora: what is found, how fast, and how often by mistake.

    python benchmarks/contamination.py [--data ../shared/data] [--ngram 13] [--whole 8]

None of the corpora is known to hold any of the sets, so what is found in them are false alarms until looked at; the
last two rows are sets that hold what is looked for. Megabytes are UTF-8 bytes of text per CPU second of one thread,
after the texts were segmented, the compile left out.
"""

import os

os.environ.update(POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1")

import argparse
import io
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import zstandard

from aurora_m.corpus import BoilerplateConfig, CurateConfig, DecontaminateConfig, DomainConfig, SourceConfig
from aurora_m.corpus.boilerplate import Removed, learn_boilerplate
from aurora_m.corpus.decontaminate import EvaluationIndex, Overlap, load_evaluation_index
from aurora_m.corpus.engine import ordered_threads
from aurora_m.corpus.normalise import normalise_pass
from aurora_m.corpus.segments import segment
from aurora_m.corpus.sources import open_source

LANGUAGES = ("en", "fi", "hi", "ja", "vi", "code")
SETS = {
    "gsm8k-test": ("gsm8k/test.jsonl", ["question", "answer"], None),
    "humaneval": ("humaneval/HumanEval.jsonl.gz", ["prompt", "canonical_solution"], None),
    "mbpp": ("mbpp/mbpp.jsonl", ["text", "code"], None),
    "jcommonsenseqa": ("jglue/jcommonsenseqa-v1.3/valid-v1.3.json", ["question"], None),
    "jnli": ("jglue/jnli-v1.3/valid-v1.3.json", ["sentence1", "sentence2"], None),
    "jsquad": ("jglue/jsquad-v1.3/valid-v1.3.json", ["context", "qas.question"], "data.paragraphs"),
    "xquad-en": ("xquad/xquad.en.json", ["context", "qas.question"], "data.paragraphs"),
    "xquad-hi": ("xquad/xquad.hi.json", ["context", "qas.question"], "data.paragraphs"),
    "xquad-vi": ("xquad/xquad.vi.json", ["context", "qas.question"], "data.paragraphs"),
    "truthfulqa": ("truthfulqa/TruthfulQA.csv", ["Question", "Best Answer"], None),
    "turku-paraphrase": ("turku-paraphrase/test.json", ["txt1", "txt2"], None),
}


def load_index(folder: Path, ngram: int, whole: int) -> EvaluationIndex:
    """All sets, and a table of what of them can be looked for."""
    against = [
        {"name": name, "path": str(folder / path), "fields": fields, "items": items}
        for name, (path, fields, items) in SETS.items()
    ]
    started = time.process_time()
    index = load_evaluation_index(
        DecontaminateConfig.model_validate({"against": against, "ngram": ngram, "whole": whole})
    )
    assert index is not None
    print(f"{'evaluation set':<18}{'items':>8}{'texts':>8}{'too short':>11}")
    for one in index.describe({})["sets"]:
        print(f"{one['name']:<18}{one['items']:>8}{one['texts']:>8}{one['texts_too_short']:>11}")
    print(f"read and put into a table in {time.process_time() - started:.1f} CPU s\n")
    return index


def batches(path: Path, field: str = "text") -> Iterator[pa.LargeStringArray]:
    """Normalised texts of a corpus, 500 at a time."""
    with zstandard.open(path, "rb") if path.suffix == ".zst" else path.open("rb") as file:
        texts = [json.loads(line)[field] for line in io.TextIOWrapper(file, "utf-8")]  # pyright: ignore
    for start in range(0, len(texts), 500):
        yield normalise_pass(pa.array(texts[start : start + 500], pa.large_string()))[0]


def measure_overlaps(index: EvaluationIndex, path: Path, field: str = "text") -> dict:
    """Contaminated documents of a corpus by set, and MB per CPU second."""
    seconds = size = documents = 0
    found: list[Overlap] = []
    for texts in batches(path, field):
        segments = segment(texts)
        started = time.process_time()
        found += index.find(texts, segments)
        seconds += time.process_time() - started
        size += int(np.diff(np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1)).sum())
        documents += len(texts)
    names = [name for overlap in found for name in overlap.sets]
    by_set = {name: names.count(name) for name in dict.fromkeys(names)}
    longest = max((one.longest_words for overlap in found for one in overlap.sets.values()), default=0)
    return {
        "documents": documents,
        "contaminated": len(found),
        "by_set": by_set,
        "longest_words": longest,
        "mb_per_second": round(size / 1e6 / seconds, 1),
    }


def measure_boilerplate(path: Path, lang: str) -> dict:
    """What is learned from a corpus and removed from it, and MB per CPU second."""
    source = open_source(SourceConfig(kind="jsonl", path=str(path)), lang, DomainConfig(lang=lang), CurateConfig())
    removed, seconds, size, documents = Removed(), 0.0, 0, 0
    with ordered_threads(1) as in_order:
        started = time.process_time()
        boilerplate = learn_boilerplate([source], BoilerplateConfig(), in_order)
        learning = time.process_time() - started
        for parsed in source.read(in_order):
            started = time.process_time()
            removed.add(boilerplate.remove(parsed.documents)[1])
            seconds += time.process_time() - started
            size += parsed.documents.nbytes
            documents += parsed.documents.num_rows
    described = removed.describe()
    return {
        "learned": len(boilerplate),
        "learning_seconds": round(learning, 2),
        "documents": documents,
        "changed": described["documents"],
        "lines": described["lines"],
        "bytes": described["bytes"],
        "mb_per_second": round(size / 1e6 / seconds, 1),
        "top": [one["line"][:60] for one in described["top"][:3]],
    }


def main() -> None:
    """Prints the tables and the result line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--ngram", type=int, default=13)
    parser.add_argument("--whole", type=int, default=8)
    arguments = parser.parse_args()
    index = load_index(arguments.data / "eval", arguments.ngram, arguments.whole)
    index.find(texts := pa.array(["warm up"], pa.large_string()), segment(texts))

    corpora = {lang: (arguments.data / "corpus" / f"{lang}.jsonl.zst", "text") for lang in LANGUAGES}
    corpora["gsm8k-train"] = arguments.data / "eval/gsm8k/train.jsonl", "question"
    corpora["gsm8k-test"] = arguments.data / "eval/gsm8k/test.jsonl", "question"
    print(f"{'corpus':<14}{'documents':>10}{'contaminated':>14}{'longest':>9}{'MB/s':>8}  by set")
    overlaps = {}
    for name, (path, field) in corpora.items():
        one = overlaps[name] = measure_overlaps(index, path, field)
        sets = ", ".join(f"{set_name} {count}" for set_name, count in one["by_set"].items())
        print(
            f"{name:<14}{one['documents']:>10}{one['contaminated']:>14}{one['longest_words']:>9}"
            f"{one['mb_per_second']:>8}  {sets}"
        )

    print(
        f"\n{'corpus':<14}{'documents':>10}{'changed':>9}{'lines':>8}{'bytes':>9}{'learned':>9}{'in s':>7}{'MB/s':>8}"
    )
    lines = {}
    measure_boilerplate(corpora["vi"][0], "vi")  # compiles
    for lang in LANGUAGES[:-1]:
        one = lines[lang] = measure_boilerplate(corpora[lang][0], lang)
        print(
            f"{lang:<14}{one['documents']:>10}{one['changed']:>9}{one['lines']:>8}{one['bytes']:>9}{one['learned']:>9}"
            f"{one['learning_seconds']:>7}{one['mb_per_second']:>8}"
        )
    result = {"benchmark": "contamination", "machine": platform.processor(), "overlaps": overlaps, "boilerplate": lines}
    print("RESULT", json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
