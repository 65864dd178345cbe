"""All of curation on real text: megabytes per second by threads, and time and memory against the size of the corpus.

    python benchmarks/curation.py [--data ../shared/data/corpus] [--times 1 4 12]

First jsonl.zst of all domains to parquet, every pass on, with one thread and with two: megabytes of text (UTF-8) per
CPU second and per second of the clock. Then English and Japanese, once and several times over, the lines of every copy
shuffled and salted so that most are no duplicates of the first; one of these with one thread too. Each run is a process
of its own, and curates 300 documents of every domain first: loading the compiled kernels takes a second, which is shown
but not counted. Peak memory counts pages of mapped files too, which the system takes back when it needs them; memory of
the process's own (looked at fifty times a second) does not. Seconds by pass are in the RESULT line.
"""

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zstandard

RUN = """
import json, sys, threading, time
from collections import Counter
from pathlib import Path
from aurora_m.corpus import CurateConfig, DomainConfig, curate
from aurora_m.workspace import Progress, peak_memory_bytes
def read(limit):
    described = json.loads(sys.argv[1])
    for domain in described.values():
        domain["sources"][0]["limit_documents"] = limit
    return {name: DomainConfig.model_validate(domain) for name, domain in described.items()}
config = CurateConfig.model_validate({"threads": int(sys.argv[3])})
own_kib, done = [0], threading.Event()
def watch():
    while not done.wait(0.02):
        lines = Path("/proc/self/status").read_text().splitlines()
        own_kib[0] = max(own_kib[0], *(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")))
started = time.perf_counter()
curate(config, read(300), Path(sys.argv[2] + "-small"), seed=0, progress=Progress(quiet=True))
loading, started, cpu = time.perf_counter() - started, time.perf_counter(), time.process_time()
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
result = curate(config, read(None), Path(sys.argv[2]), seed=0, progress=Progress(quiet=True))
row = {"loading": loading, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
done.set()
row |= {"megabytes": result["bytes_in"] / 1e6, "peak_mib": peak_memory_bytes() / 2**20, "own_mib": own_kib[0] / 1024}
seconds = Counter()
for domain in result["domains"].values():
    seconds.update({one["name"]: one["seconds"] for one in domain["passes"]})
row["seconds_by_pass"] = {name: round(value, 1) for name, value in seconds.items()}
row["documents"] = sum(domain["train"]["documents"] for domain in result["domains"].values())
print(json.dumps(row))
"""
TITLES = ("MB", "seconds", "CPU s", "MB/CPU s", "MB/s", "peak MiB", "own MiB", "loading")
LANGUAGES = ("en", "fi", "hi", "ja", "vi")


def run(domains: dict[str, dict], threads: int) -> dict[str, float]:
    """Curates in a fresh process."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", RUN, json.dumps(domains), f"{out}/curated", str(threads)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def domain_of(name: str, path: Path) -> dict:
    rules = {"lang": name} if name in LANGUAGES else {"rules": "code"}
    return {**rules, "sources": [{"kind": "jsonl", "path": str(path)}]}


def write_copies(path: Path, out: Path, times: int) -> None:
    """The documents of a corpus so many times over, all copies but the first with their lines in another order."""
    generator = random.Random(0)
    with out.open("w", encoding="utf-8") as copies:
        for number in range(times):
            with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
                for line in stream.read().decode().splitlines():
                    row = json.loads(line)
                    row["id"] = f"{number}-{row['id']}"
                    if number:
                        lines = row["text"].split("\n")
                        generator.shuffle(lines)
                        row["text"] = "\n".join([*lines, f"copy {number} {generator.random()}"])
                    copies.write(json.dumps(row, ensure_ascii=False) + "\n")


def show(name: str, row: dict[str, float]) -> None:
    size, cpu, wall = row["megabytes"], row["cpu_seconds"], row["seconds"]
    columns = (size, ".0f"), (wall, ".1f"), (cpu, ".1f"), (size / cpu, ".1f"), (size / wall, ".1f")
    columns += (row["peak_mib"], ".0f"), (row["own_mib"], ".0f"), (row["loading"], ".1f")
    print(f"{name:<24}" + "".join(f"{value:>10{form}}" for value, form in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/corpus"))
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 12])
    arguments = parser.parse_args()
    if not (arguments.data / "en.jsonl.zst").exists():
        sys.exit(f"{arguments.data} holds no en.jsonl.zst; name the folder of the corpora with --data")
    result: dict[str, Any] = {"machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    everything = {
        name: domain_of(name, arguments.data / f"{name}.jsonl.zst")
        for name in (*LANGUAGES, "code")
        if (arguments.data / f"{name}.jsonl.zst").exists()
    }
    run(everything, 2)  # compiles, and reads the files once
    print(f"{'':<24}" + "".join(f"{title:>10}" for title in TITLES))
    for threads in (1, 2):
        row = result[f"threads_{threads}"] = run(everything, threads)
        show(f"all domains, {threads} thread{'s' * (threads > 1)}", row)
    compared = sorted(arguments.times)[len(arguments.times) // 2]
    with tempfile.TemporaryDirectory() as scratch:
        for times in arguments.times:
            domains = {}
            for name in ("en", "ja"):
                copies = Path(scratch) / f"{name}.jsonl"
                write_copies(arguments.data / f"{name}.jsonl.zst", copies, times)
                domains[name] = domain_of(name, copies)
            for threads in (1, 2) if times == compared else (2,):
                row = result[f"times_{times}_threads_{threads}"] = run(domains, threads)
                show(f"en and ja x {times}, {threads} thread{'s' * (threads > 1)}", row)
    one, two = (result[f"times_{compared}_threads_{threads}"]["seconds"] for threads in (1, 2))
    result["speedup_of_two_threads"] = one / two
    print(f"two threads are {one / two:.2f} times as fast as one (en and ja x {compared})")
    print("RESULT", json.dumps(result))


if __name__ == "__main__":
    main()
