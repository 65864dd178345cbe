"""Pairs as documents: what is dropped and why, how long and how balanced the documents are, and what that costs.

Of each file of pairs: the records that are no pair, by reason; the documents of several pairs and the bytes of each
direction; CPU seconds in one thread, against the same records each as a document of its own by a template (nothing
checked, nothing packed). Both take turns, the fastest counts.

    python benchmarks/pairs.py ../shared/data/parallel [--turns 3]
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aurora_m.corpus import CurateConfig, DomainConfig, SourceConfig
from aurora_m.corpus.records import Parsed
from aurora_m.corpus.sources import open_source


def read(path: Path, **settings: Any) -> tuple[list[Parsed], float]:
    """What a source gives, and the CPU seconds that took."""
    source = SourceConfig.model_validate({"kind": "jsonl", "path": str(path), **settings})
    opened = open_source(source, "parallel", DomainConfig(rules="none"), CurateConfig())
    started = time.process_time()
    parsed = list(opened.read(map))
    return parsed, time.process_time() - started


def describe(parsed: list[Parsed]) -> dict[str, Any]:
    """Counts of what a source of pairs gave."""
    dropped, directions, lengths, pairs = Counter(), Counter(), [], 0
    for one in parsed:
        dropped.update({reason.removeprefix("pair:"): records for reason, (records, _) in one.rejected.items()})
        for document in one.documents.select(["text", "meta"]).to_pylist():
            meta = json.loads(document["meta"])
            lengths.append(len(document["text"].encode()))
            directions[meta["direction"]] += lengths[-1]
            pairs += meta["pairs"]
    median = sorted(lengths)[len(lengths) // 2]
    return {
        "pairs": pairs,
        "documents": len(lengths),
        "median_bytes": median,
        "dropped": dict(dropped.most_common()),
        "directions": dict(sorted(directions.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds <lang>-en.jsonl.zst, records with `en` and `<lang>`")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for path in sorted(options.folder.glob("*-en.jsonl.zst")):
        lang = path.name.partition("-")[0]
        ways = {"pairs": {"langs": ["en", lang]}}, {"template": f"English: {{{{ en }}}}\nOther: {{{{ {lang} }}}}"}
        seconds: tuple[list[float], list[float]] = ([], [])
        row: dict[str, Any] = {"file": path.name}
        for _ in range(options.turns):
            for number, settings in enumerate(ways):
                parsed, taken = read(path, **settings)
                seconds[number].append(taken)
                if number == 0:
                    row |= describe(parsed)
        row |= {"cpu_seconds": min(seconds[0]), "ratio_to_template": min(seconds[0]) / min(seconds[1])}
        rows.append(row)
        print(f"{path.name}: {row['pairs'] + sum(row['dropped'].values()):,} records, {row['pairs']:,} pairs kept")
        print("  dropped: " + ", ".join(f"{reason} {count:,}" for reason, count in row["dropped"].items()))
        print(f"  {row['documents']:,} documents, median {row['median_bytes']:,} bytes; bytes {row['directions']}")
        print(f"  {row['cpu_seconds']:.2f} CPU s, {row['ratio_to_template']:.2f} of one template a record\n")
    print("RESULT " + json.dumps(rows))


if __name__ == "__main__":
    main()
