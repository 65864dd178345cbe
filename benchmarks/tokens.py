"""The tokens room timed: MB/s of encoding against `tokenizers` in the same run, the whole stage, batches per second.

    python benchmarks/tokens.py [--corpus FOLDER] [--vocab-size 32768] [--bytes-per-domain 4M] [--peer-bytes 4M]

FOLDER holds one <domain>.jsonl or .jsonl.zst per domain with a `text` each (default: ../shared/data/corpus where it is,
else samples/). The texts are taken as they are, uncurated. `peer` is tokenizers' own encode_batch_fast on all cores,
over the first --peer-bytes of each domain; ids are compared. Prints tables, and as its last line `RESULT {json}`.
"""

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from aurora_m.tokens import DomainTokens, FimConfig, TokenizerConfig, TrainBatches, load_tokenizer, tokenize
from aurora_m.tokens.encoder import Encoder
from aurora_m.workspace import Progress, parse_count, peak_memory_bytes

REPOSITORY = Path(__file__).resolve().parent.parent
SEQUENCES, LENGTH, BATCHES = 16, 512, 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=default_corpus())
    parser.add_argument("--vocab-size", type=parse_count, default=32768)
    parser.add_argument("--bytes-per-domain", type=parse_count, default=4_000_000)
    parser.add_argument("--peer-bytes", type=parse_count, default=4_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        curated, out = Path(temporary) / "curated", Path(temporary) / "tokens"
        domains = write_curated(arguments.corpus, curated)
        train = {
            "vocab_size": arguments.vocab_size,
            "domains": domains,
            "bytes_per_domain": arguments.bytes_per_domain,
        }
        config = TokenizerConfig.model_validate({"train": train})
        stage = tokenize(config, curated, out, base_folder=None, seed=1, progress=Progress(quiet=True))
        encoding = {domain: compare(curated, out, domain, arguments.peer_bytes) for domain in domains}
        batches = time_batches(out, domains, stage)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": time.strftime("%Y-%m-%d"),
        "corpus": arguments.corpus.name,
        "encoder": stage["tokenizer"]["encoder"],
        "stage_seconds": stage["seconds"],
        "stage_cpu_seconds": stage["cpu_seconds"],
        "stage_megabytes": round(sum(count["train"]["bytes"] for count in stage["domains"].values()) / 1e6, 1),
        "peak_memory_megabytes": round(peak_memory_bytes() / 1e6),
        "encoding": encoding,
        "batches": batches,
    }
    print_tables(result, {domain: count["train"] for domain, count in stage["domains"].items()})
    print("RESULT", json.dumps(result))


def default_corpus() -> Path:
    shared = REPOSITORY.parent / "shared" / "data" / "corpus"
    return shared if shared.is_dir() else REPOSITORY / "samples"


def write_curated(corpus: Path, curated: Path) -> list[str]:
    """The corpus in the files of the curate stage, uncurated; returns the domains."""
    schema = pa.schema({"id": pa.string(), "text": pa.large_string(), "source": pa.string(), "lang": pa.string()})
    paths = sorted(path for path in corpus.glob("*.jsonl*") if "dirty" not in path.name)
    for path in paths:
        folder = curated / path.name.split(".")[0]
        folder.mkdir(parents=True)
        with pq.ParquetWriter(folder / "train-00000.parquet", schema, compression="zstd") as writer:
            for rows in in_groups(read_texts(path), 1000):
                columns = [
                    [str(number) for number in range(len(rows))],
                    rows,
                    [path.name] * len(rows),
                    [None] * len(rows),
                ]
                arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
                writer.write_table(pa.table(arrays, schema=schema))
    return [path.name.split(".")[0] for path in paths]


def read_texts(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file) if path.suffix == ".zst" else file
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)["text"]


def in_groups(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    group: list[str] = []
    for text in texts:
        group.append(text)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def compare(curated: Path, out: Path, domain: str, peer_bytes: int) -> dict[str, float]:
    """Wall-clock MB/s of our encoder and of tokenizers on the same texts, both on all cores; and whether ids agree."""
    tokenizer = load_tokenizer(out / "tokenizer")
    encoder = Encoder(tokenizer)
    texts, size = [], 0
    for text in pq.read_table(curated / domain / "train-00000.parquet", columns=["text"])["text"].to_pylist():
        texts.append(text)
        size += len(text.encode())
        if size >= peer_bytes:
            break
    groups = [texts[start : start + 64] for start in range(0, len(texts), 64)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = time.perf_counter()
        ours = [document for group in pool.map(encoder.encode_batch, groups) for document in group]
        our_seconds = time.perf_counter() - started
    started = time.perf_counter()
    theirs = [ids for group in groups for ids in tokenizer.encode_batch(group)]
    peer_seconds = time.perf_counter() - started
    different = sum(not np.array_equal(a[:-1], b) for a, b in zip(ours, theirs, strict=True))
    return {
        "megabytes_per_second": round(size / 1e6 / our_seconds, 2),
        "peer_megabytes_per_second": round(size / 1e6 / peer_seconds, 2),
        "ratio": round(peer_seconds / our_seconds, 2),
        "different_documents": different,
    }


def time_batches(out: Path, domains: list[str], stage: dict) -> dict[str, float]:
    """Milliseconds of one batch of 16 x 512 tokens, equal shares; FIM on `code` where there is that domain."""
    tokens = {domain: DomainTokens(out, domain) for domain in domains}
    shares = dict.fromkeys(domains, 1 / len(domains))
    fim = FimConfig(domains=["code"]) if "code" in domains else None
    eod_id, fim_ids = stage["tokenizer"]["eod_id"], stage["tokenizer"]["fim"]
    batches = TrainBatches(tokens, shares, LENGTH, seed=1, eod_id=eod_id, fim=fim, fim_ids=fim_ids)
    seconds = []
    for _ in range(BATCHES):
        started = time.perf_counter()
        batches.next_batch(SEQUENCES)
        seconds.append(time.perf_counter() - started)
    median = float(np.median(seconds))
    return {
        "median_milliseconds": round(1e3 * median, 3),
        "p99_milliseconds": round(1e3 * float(np.percentile(seconds, 99)), 3),
        "batches_per_second": round(1 / float(np.mean(seconds))),
        "tokens_per_second": round(SEQUENCES * LENGTH / float(np.mean(seconds))),
    }


def print_tables(result: dict, counts: dict[str, dict]) -> None:
    print(f"{result['machine']}, {result['date']}, {result['corpus']}, encoder {result['encoder']}\n")
    print("domain          MB  tokens/byte  ours MB/s  tokenizers MB/s  ratio  documents that differ")
    for domain, row in result["encoding"].items():
        ours, peer = row["megabytes_per_second"], row["peer_megabytes_per_second"]
        print(
            f"{domain:12} {counts[domain]['bytes'] / 1e6:5.1f} {counts[domain]['tokens_per_byte']:12.3f} {ours:10.1f} "
            f"{peer:16.1f} {row['ratio']:6.1f} {row['different_documents']:22}"
        )
    print(
        f"\nwhole stage with tokenizer training: {result['stage_megabytes']} MB in {result['stage_seconds']:.1f} s "
        f"({result['stage_cpu_seconds']:.1f} CPU s), peak memory {result['peak_memory_megabytes']} MB"
    )
    batches = result["batches"]
    print(
        f"batch of {SEQUENCES} x {LENGTH}: median {batches['median_milliseconds']} ms, 99th percentile "
        f"{batches['p99_milliseconds']} ms, {batches['tokens_per_second'] / 1e6:.1f}M tokens/s\n"
    )


if __name__ == "__main__":
    main()
