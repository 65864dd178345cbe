"""What a base forgets and learns under each way of continuing it: the experiments behind docs/method.md.

A base learns English and code, and its tokenizer with it; then it is continued on Finnish, Hindi, Japanese and
Vietnamese with the same number of tokens under each strategy (`list` names them). Every run is a process of its own;
one that was stopped goes on from its last checkpoint, and one that is done is a small file in
benchmarks/results/forgetting, from which docs/method.md and its plots are drawn (benchmarks/method_page.py).

Two held-out sets that no code path trains on: the ledger's, which controllers and merging look at, and another of other
documents, scored once at the end, which judges all strategies.

    python benchmarks/forgetting.py list
    python benchmarks/forgetting.py run --data ../shared/data --work /where/there/is/room [--only 'guard*,even-*']
        [--seeds 1,2,3] [--scale 3M] [--jobs 2] [--minutes 60]
"""

import argparse
import fnmatch
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from forgetting_strategies import NEW, OLD, STRATEGIES, Scale, Strategy, base_phase, scale_of

from aurora_m.model import ArchitectureConfig, BaseConfig, load_model
from aurora_m.pipeline import run as run_recipe
from aurora_m.recipe import Recipe
from aurora_m.tokens import DomainTokens, TokenizerConfig, heldout_batches, tokenize
from aurora_m.training import TrainConfig, score_heldout, train
from aurora_m.training.ledger import change_against, read_base_bits, write_base_bits
from aurora_m.workspace import Progress, atomic_path, read_json

RESULTS = Path(__file__).parent / "results" / "forgetting"
DOMAINS = [*OLD, *NEW]
# The ledger's cap by domain: what is guarded is measured often, so it gets more.
LEDGER_TOKENS = {**dict.fromkeys(OLD, 40_000), **dict.fromkeys(NEW, 16_000)}
# Of each domain, the ledger's documents included, which are then left out.
JUDGE_TOKENS = {**dict.fromkeys(OLD, 120_000), **dict.fromkeys(NEW, 60_000)}
PIECE_BYTES = 1500
BITS = "judged_bits.npz"  # beside a base's weights: what its continuations are compared with
RECIPE = """
name: forgetting
description: Corpora of the forgetting experiments.
seed: 1
base:
  architecture: {{family: gpt_bigcode, layers: 4, hidden_size: 192, heads: 4, max_positions: 512}}
domains:
{domains}
tokenizer:
  train: {{vocab_size: 4096, domains: [en, code], bytes_per_domain: 8M}}
train:
  ledger: {{every: 1M}}
  checkpoint: {{every: 1M}}
  phases:
    - name: base
      tokens: 1M
      mixture: {{en: 0.5, code: 0.5}}
      sequence_length: 512
      tokens_per_step: 8192
      lr: {{peak: 1e-3}}
release: {{name: forgetting, license: cc-by-nc-sa-4.0}}
"""


# ----------------------------------------------------------------------------------------------- corpora
def prepare(data: Path, work: Path) -> None:
    """Curates and tokenizes the corpora where that is not done; the tokenizer knows English and code only."""
    recipe = work / "forgetting.yaml"
    lines = [
        f"  {domain}: {{{'rules: code' if domain == 'code' else f'lang: {domain}'}, heldout: {{share: 0.1}}, "
        f'sources: [{{kind: jsonl, path: "{data.absolute()}/corpus/{domain}.jsonl.zst"}}]}}'
        for domain in DOMAINS
    ]
    work.mkdir(parents=True, exist_ok=True)
    recipe.write_text(RECIPE.format(domains="\n".join(lines)))
    loaded = Recipe.load(recipe)
    run = run_recipe(loaded, runs=work / "corpora", only="curate", progress=Progress(quiet=True))
    if (work / "tokens" / "tokens.json").exists():
        extend(work)
        return
    cut(run / "curated", work / "cut")
    tokenize(loaded.tokenizer, work / "cut", work / "tokens", seed=1, progress=Progress(quiet=True))
    extend(work)


def extend(work: Path) -> None:
    """The corpora in the vocabulary with new tokens; held-out text is what judges, all of it and in the same order."""
    if (work / "tokens-extended" / "tokens.json").exists():
        return
    for path in sorted((work / "cut").glob("*/*-*.parquet")):
        domain, target = path.parent.name, work / "cut-extended" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        table = pl.read_parquet(path)
        if path.name.startswith("heldout"):
            table = table[judges_of(work / "tokens", domain).tolist()]
        table.write_parquet(target)
    settings = {"path": str(work / "tokens" / "tokenizer"), "extend": {"domains": NEW, "new_tokens": 1000}}
    config = TokenizerConfig.model_validate(settings)
    tokenize(config, work / "cut-extended", work / "tokens-extended", seed=1, progress=Progress(quiet=True))


def judges_of(tokens: Path, domain: str) -> np.ndarray:
    """The held-out documents that are scored at the end, those of the ledger among them, by their numbers."""
    return heldout_batches(DomainTokens(tokens, domain, "heldout"), 512, 1, 0, JUDGE_TOKENS[domain]).documents_scored


def cut(curated: Path, out: Path) -> None:
    """The documents in pieces of whole lines: a step here has 2,048 or 8,192 tokens, where a real one has millions.

    Documents longer than a step would make every step one of a single document, and replay of a single file. Pieces of
    one document stay on one side: it was held out before it was cut.
    """
    for path in sorted(curated.glob("*/*-*.parquet")):
        target = out / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        table = pl.read_parquet(path)
        pieces = table.with_columns(pl.col("text").map_elements(pieces_of, return_dtype=pl.List(pl.String)))
        numbered = pieces.explode("text").with_columns(
            pl.concat_str([pl.col("id"), pl.int_range(pl.len()).over("id").cast(pl.String)], separator="#").alias("id")
        )
        numbered.write_parquet(target)


def pieces_of(text: str) -> list[str]:
    pieces, size = [""], 0
    for line in text.splitlines(keepends=True):
        length = len(line.encode())
        if size and size + length > PIECE_BYTES:
            pieces.append("")
            size = 0
        pieces[-1] += line
        size += length
    return pieces


# ----------------------------------------------------------------------------------------------- one run
@dataclass(frozen=True)
class Job:
    """A strategy with a seed at a scale; `base` is the strategy of the model all others continue."""

    scale: str
    strategy: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.strategy}-s{self.seed}"

    @property
    def result(self) -> Path:
        return RESULTS / self.scale / f"{self.name}.json"

    def folder(self, work: Path) -> Path:
        return work / self.scale / self.name

    def base(self, work: Path) -> Path:
        return Job(self.scale, "base", self.seed).folder(work) / "base" / "model"


def run_job(job: Job, work: Path, threads: int) -> None:
    """Trains, judges, and writes the result."""
    scale, out = scale_of(job.scale), job.folder(work)
    strategy = STRATEGIES[job.strategy] if job.strategy != "base" else None
    extended = strategy is not None and strategy.extended
    tokens = work / ("tokens-extended" if extended else "tokens")
    config = train_config(scale, strategy, threads)
    scratch = strategy is None or strategy.scratch
    result = train(
        config,
        BaseConfig(architecture=ArchitectureConfig.model_validate(scale.architecture))
        if scratch
        else BaseConfig(path=str(job.base(work))),
        tokens,
        out,
        # A continued run reads the base's text in another order: nobody has the base's own.
        seed=job.seed if strategy is None else job.seed + 1000,
        base_folder=None if scratch else job.base(work),
        progress=Progress(quiet=True),
    )
    model = out / ("base/model" if strategy is None else result["final_model"])
    judged = judge(model, None if strategy is None else job.base(work), work / "tokens", tokens)
    used = resource.getrusage(resource.RUSAGE_SELF)
    row = {
        "scale": job.scale,
        "strategy": job.strategy,
        "seed": job.seed,
        "phases": [
            {name: phase[name] for name in ("name", "tokens", "mixture", "tokens_by_domain")}
            for phase in result["phases"]
        ],
        "parameters": result["parameters"],
        "ledger": ledger_of(out),
        "judged": judged,
        **extras(out),
        "seconds": result["seconds"],
        "cpu_seconds": round(used.ru_utime + used.ru_stime),
        "threads": threads,
        "date": str(date.today()),
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} shared cores",
    }
    job.result.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(job.result) as temporary:
        temporary.write_text(json.dumps(row, separators=(",", ":")) + "\n")


def train_config(scale: Scale, strategy: Strategy | None, threads: int) -> TrainConfig:
    settings = strategy.settings(scale) if strategy else {"phases": [base_phase(scale)]}
    every = 10**12 if strategy is None else scale.tokens // 10
    return TrainConfig.model_validate(
        {
            "ledger": {"every": every, "heldout_tokens": LEDGER_TOKENS},
            "checkpoint": {"every": scale.tokens // 5, "keep": 1},
            "precision": "bfloat16",
            "threads": threads,
            **settings,
        }
    )


def ledger_of(out: Path) -> dict[str, Any]:
    """The ledger by domain: tokens seen, bits per byte, and the base's in its own vocabulary."""
    rows = pl.read_parquet(out / "ledger.parquet")
    first = rows.filter(pl.col("domain") == OLD[0])
    return {
        "tokens": first["tokens"].to_list(),
        "phase": first["phase"].to_list(),
        "base": {domain: rows.filter(pl.col("domain") == domain)["base_bpb"].to_list()[-1] for domain in DOMAINS},
        "bpb": {
            domain: [round(bpb, 5) for bpb in rows.filter(pl.col("domain") == domain)["bpb"].to_list()]
            for domain in DOMAINS
        },
    }


def judge(model: Path, base: Path | None, tokens: Path, own_tokens: Path) -> dict[str, Any]:
    """Bits per byte on the held-out documents that the ledger does not score, and the change against the base.

    `own_tokens` are the same documents in the model's own vocabulary, where that is another.
    """
    caps = JUDGE_TOKENS if own_tokens == tokens else None
    scores = score_heldout(load_model(model), own_tokens, DOMAINS, 512, caps, precision="float32")
    before: dict[str, np.ndarray] = {}
    if base is None:
        bits = {domain: score.bits for domain, score in scores.items() if score.bits is not None}
        write_base_bits(bits, model / BITS)
    else:
        before = read_base_bits(base / BITS)
    judged = {}
    for domain, score in scores.items():
        documents, judges = DomainTokens(tokens, domain, "heldout"), judges_of(tokens, domain)
        seen = heldout_batches(documents, 512, 1, 0, LEDGER_TOKENS[domain]).documents_scored
        others = ~np.isin(judges, seen)
        assert score.bits is not None and len(score.bits) == len(judges)
        bits, sizes = score.bits[others], documents.bytes[judges[others]]
        judged[domain] = {"bpb": round(float(bits.sum() / sizes.sum()), 5), "documents": int(others.sum())}
        if before:
            change, error = change_against(bits, before[domain][others])
            judged[domain] |= {"change": round(change, 5), "change_stderr": None if error is None else round(error, 5)}
    return judged


def extras(out: Path) -> dict[str, Any]:
    """What controllers decided and merging tried, where a run did either."""
    found: dict[str, Any] = {}
    if (decisions := out / "guardrails.jsonl").exists():
        found["guardrails"] = [json.loads(line) for line in decisions.read_text().splitlines()]
    if (merge := out / "merge.json").exists():
        found["merge"] = read_json(merge)
    return found


def commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return described.stdout.strip() or "unknown"


# ----------------------------------------------------------------------------------------------- many runs
def waiting(jobs: list[Job], running: dict[Job, subprocess.Popen], failed: set[Job], work: Path) -> Job | None:
    """The next job whose base is there."""
    for job in jobs:
        if job.result.exists() or job in running or job in failed:
            continue
        if job.strategy == "base" or (STRATEGIES[job.strategy].scratch and base_is_done(job, work)):
            return job
        if base_is_done(job, work):
            return job
    return None


def base_is_done(job: Job, work: Path) -> bool:
    return job.base(work).exists() and Job(job.scale, "base", job.seed).result.exists()


def run_all(jobs: list[Job], arguments: argparse.Namespace) -> int:
    """Runs what is not done, `--jobs` at a time, for `--minutes` at most; what is cut short goes on next time."""
    running: dict[Job, subprocess.Popen] = {}
    failed: set[Job] = set()
    deadline = time.monotonic() + 60 * arguments.minutes
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.jobs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the runs are told too
    left = sum(not job.result.exists() for job in jobs)
    print(f"{len(jobs) - left} runs are done, {left} to go", flush=True)
    try:
        while time.monotonic() < deadline:
            for job, process in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    ok = process.returncode == 0 and job.result.exists()
                    print(f"{time.strftime('%H:%M:%S')} {job.name}: {'done' if ok else 'FAILED'}", flush=True)
                    if not ok:
                        failed.add(job)
            while len(running) < arguments.jobs and (job := waiting(jobs, running, failed, arguments.work)):
                command = [sys.executable, __file__, "one", job.strategy, str(job.seed), "--scale", job.scale]
                command += ["--work", str(arguments.work), "--threads", str(threads)]
                job.folder(arguments.work).mkdir(parents=True, exist_ok=True)
                with (job.folder(arguments.work) / "log.txt").open("a") as log:
                    running[job] = subprocess.Popen(command, stdout=log, stderr=log)
            if not running:
                break
            time.sleep(1)
    finally:
        for process in running.values():
            process.terminate()  # each writes a checkpoint first
        for process in running.values():
            process.wait()
    left = sum(not job.result.exists() for job in jobs)
    print(f"{left} runs are left" + (f"; {len(failed)} failed, see log.txt in their folders" if failed else ""))
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the strategies")
    several = commands.add_parser("run", help="run what is not done")
    several.add_argument("--data", type=Path, default=Path("../shared/data"))
    several.add_argument("--only", default="*", help="strategies by name, with * and commas")
    several.add_argument("--seeds", default="1,2,3")
    several.add_argument("--jobs", type=int, default=2)
    several.add_argument("--minutes", type=float, default=10**6)
    one = commands.add_parser("one", help="run one strategy with one seed")
    one.add_argument("strategy")
    one.add_argument("seed", type=int)
    for each in (several, one):
        each.add_argument("--work", type=Path, required=True)
        each.add_argument("--scale", default="3M")
        each.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.command == "list":
        for name, strategy in STRATEGIES.items():
            print(f"{name:24s} {strategy.about}")
        return 0
    if arguments.command == "one":
        run_job(Job(arguments.scale, arguments.strategy, arguments.seed), arguments.work, arguments.threads or 1)
        return 0
    prepare(arguments.data, arguments.work)
    patterns = arguments.only.split(",")
    names = list(dict.fromkeys(name for pattern in patterns for name in fnmatch.filter(STRATEGIES, pattern)))
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    jobs = [Job(arguments.scale, name, seed) for seed in seeds for name in ("base", *names)]
    return run_all(jobs, arguments)


if __name__ == "__main__":
    sys.exit(main())
