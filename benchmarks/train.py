"""Speed and memory of our training loop against transformers' Trainer: same weights, same tokens per step, same run.

GPTBigCode models of 5M and 50M parameters (on a GPU, where there is one: 1B), AdamW fused, clipping at 1. Every
contender is a process of its own and they take turns, so that what else the machine does falls on all of them; the
median time from step to step counts, the first two of each turn left out. The Trainer tries its settings first (eager
or SDPA attention, whole steps or a quarter of one at a time), and the fastest of each precision goes on. Ours is the
whole loop as `aurora-m train` runs it: packing from memory-mapped shards with attention inside documents, losses by
domain, the guardian, a row of metrics for each step. The Trainer gets ready-made tensors, does not mask documents and
logs nothing.

What is printed: tokens/s; FLOP/s by the convention 6N (N: all weights, a tied head once), its share of what the machine
reaches in float32 products of 2048 x 2048 matrices in the same run (PyTorch's own `mm`, and oneDNN's, which is faster
on some processors), or on a GPU MFU, with attention added as 12 x layers x width x length (`flop_per_token`), against
the dense bf16 peak of its data sheet, where the table has it; peak memory of the process above what it held before the
model was built, or on a GPU what torch allocated at its peak; the share of the time our loop waited for data.

    pip install accelerate     # the Trainer needs it; nothing else here does
    python benchmarks/train.py [--models 5M,50M] [--turns 4] [--steps 5] [--threads 2]
"""

import argparse
import itertools
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from training_turns import Stopwatch, phase_of, write_documents

from aurora_m.model import ArchitectureConfig, Decoder, count_parameters, load_model, save_model
from aurora_m.model.linear import product
from aurora_m.tokens import DomainTokens, TrainBatches
from aurora_m.training import (
    CheckpointConfig,
    Loop,
    OptimizerConfig,
    TrainingState,
    build_optimizer,
    find_device,
    flop_per_token,
    run_phase,
    segment_of,
)

VOCABULARY = 8192
# Sequences per step, tokens per sequence, and what the model is built from.
MODELS = {
    "5M": (8, 512, {"layers": 4, "hidden_size": 256, "heads": 4}),
    "50M": (8, 512, {"layers": 10, "hidden_size": 640, "heads": 10}),
    "1B": (16, 2048, {"layers": 24, "hidden_size": 2048, "heads": 16}),
}
SHARES = {"aa": 0.5, "bb": 0.3, "cc": 0.2}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SETTINGS = [f"{attention} {parts}" for attention in ("sdpa", "eager") for parts in (1, 4)]


# ----------------------------------------------------------------------------------------------- the contenders
def intervals(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times[1:])]


class Ours:
    """Our loop; a new phase each turn."""

    def __init__(self, folder: Path, size: str, precision: str, setting: str, device: str) -> None:
        self.batch, self.length, _ = MODELS[size]
        self.model = load_model(folder / "model").to(device)
        self.folder, self.dtype = folder, PRECISIONS[precision]
        self.optimizer = build_optimizer(self.model, OptimizerConfig())
        self.waits: list[float] = []

    def run(self, steps: int) -> list[float]:
        stopwatch = Stopwatch(time.perf_counter)
        domains = {domain: DomainTokens(self.folder / "tokens", domain) for domain in SHARES}
        phase = phase_of(steps, self.batch, self.length, SHARES)
        with tempfile.TemporaryDirectory(dir=self.folder) as out:
            loop = Loop(Path(out), CheckpointConfig(every=10**12), 1.0, self.dtype, None, 0, stopwatch)
            state = TrainingState(self.model, self.optimizer, TrainBatches(domains, SHARES, self.length, 0, 0))
            run_phase(state, phase, segment_of(phase), loop, "benchmark")
            rows = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
        self.waits += [row["data_wait"] for row in rows[2:]]
        return intervals(stopwatch.times)

    def figures(self) -> dict[str, float]:
        return {"data_wait": statistics.mean(self.waits)}


class Theirs:
    """transformers' Trainer; `setting` is its attention and into how many parts it takes a step."""

    def __init__(self, folder: Path, size: str, precision: str, setting: str, device: str) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        attention, parts = setting.split()
        self.batch, self.length, _ = MODELS[size]
        self.parts, self.folder, self.device = int(parts), folder, device
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder / "model", attn_implementation=attention, dtype=torch.float32
        ).train()
        self.bfloat16 = precision == "bfloat16"

    def run(self, steps: int) -> list[float]:
        import transformers

        times: list[float] = []

        class Clock(transformers.TrainerCallback):
            def on_step_end(self, *arguments, **settings):
                times.append(time.perf_counter())

        arguments = transformers.TrainingArguments(
            output_dir=str(self.folder / "theirs"),
            per_device_train_batch_size=self.batch // self.parts,
            gradient_accumulation_steps=self.parts,
            max_steps=steps,
            learning_rate=1e-4,
            weight_decay=0.1,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=self.bfloat16,
            use_cpu=self.device == "cpu",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=self.device != "cpu",
        )
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1, VOCABULARY, (steps * self.batch, self.length), generator=generator)
        dataset = [{"input_ids": row, "labels": row} for row in ids]
        transformers.Trainer(model=self.model, args=arguments, train_dataset=dataset, callbacks=[Clock()]).train()
        return intervals(times)

    def figures(self) -> dict[str, float]:
        return {}


# ----------------------------------------------------------------------------------------------- a process of each
def memory_of_process(field: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM at most."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def serve(options: argparse.Namespace) -> None:
    """Builds a contender and runs as many steps as each line of the input says, until there is none."""
    torch.set_num_threads(options.threads)
    torch.randn(64, 64) @ torch.randn(64, 64)
    if options.kind == "theirs":
        from transformers import AutoModelForCausalLM, Trainer  # noqa: F401
    before = memory_of_process("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    contender = {"ours": Ours, "theirs": Theirs}[options.kind](
        options.folder, options.size, options.precision, options.setting, options.device
    )
    for line in sys.stdin:
        seconds = contender.run(int(line))
        on_gpu = options.device != "cpu"
        memory = torch.cuda.max_memory_allocated() if on_gpu else memory_of_process("VmHWM") - before
        print("SECONDS " + json.dumps({"seconds": seconds, "memory": memory, **contender.figures()}), flush=True)


class Contender:
    """A process that trains when told to."""

    def __init__(self, kind: str, size: str, precision: str, setting: str, folder: Path, device: str, threads: int):
        self.kind, self.precision, self.setting = kind, precision, setting
        command = [sys.executable, __file__, "--kind", kind, "--size", size, "--precision", precision]
        command += ["--setting", setting, "--folder", str(folder), "--device", device, "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []
        self.figures: dict[str, float] = {}

    def run(self, steps: int) -> float:
        """Trains, and returns the median seconds of a step of this turn."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("SECONDS "):
                self.figures = json.loads(line.removeprefix("SECONDS "))
                turn = self.figures.pop("seconds")
                self.seconds += turn  # type: ignore[operator]
                return statistics.median(turn)  # type: ignore[arg-type]
        raise SystemExit(f"{self.kind} {self.precision} {self.setting} ended early")

    def close(self) -> None:
        self.process.communicate()


# ----------------------------------------------------------------------------------------------- the comparison
def prepare(folder: Path, size: str) -> Decoder:
    """A model with random weights, and random documents of about 130 tokens: speed does not depend on what they say."""
    _, length, layout = MODELS[size]
    model = Decoder(ArchitectureConfig(max_positions=length, **layout).model_config_for(VOCABULARY))
    model.init_weights(seed=0)
    save_model(model, folder / "model", eod_id=0)
    write_documents(folder / "tokens", list(SHARES), VOCABULARY, (20, 240))
    return model


def product_rates() -> dict[str, float]:
    """FLOP/s of this machine in float32 products, by library: the median of five."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    rates = {}
    for name, multiply in (("mm", lambda: a @ b.T), ("oneDNN", lambda: product(a, b))):
        multiply()
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            multiply()
            seconds.append(time.perf_counter() - start)
        rates[name] = 2 * 2048**3 / statistics.median(seconds)
    return rates


def compare(size: str, options: argparse.Namespace, device: str) -> dict:
    """Rows of all contenders for one model."""
    batch, length, _ = MODELS[size]
    rates: dict[str, list[float]] = {"mm": [], "oneDNN": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = prepare(folder, size)

        def start(kind: str, precision: str, setting: str) -> Contender:
            return Contender(kind, size, precision, setting, folder, device, options.threads)

        contenders = []
        for precision in PRECISIONS if device == "cpu" else ["bfloat16"]:
            tried = {}
            for setting in SETTINGS:
                contender = start("theirs", precision, setting)
                tried[setting] = contender.run(4)
                contender.close()
                print(f"{size} Trainer {precision} {setting}: {tried[setting]:.3f} s/step", file=sys.stderr)
            contenders += [start("ours", precision, ""), start("theirs", precision, min(tried, key=tried.__getitem__))]
        for _ in range(options.turns):
            for contender in contenders:
                contender.run(options.steps + 2)
            if device == "cpu":
                torch.set_num_threads(options.threads)
                for library, rate in product_rates().items():
                    rates[library].append(rate)
        for contender in contenders:
            contender.close()
    rows = []
    for contender in contenders:
        tokens_per_second = batch * length / statistics.median(contender.seconds)
        rows.append(
            {
                "who": contender.kind,
                "precision": contender.precision,
                "setting": contender.setting,
                "tokens_per_second": tokens_per_second,
                "flops_6n": tokens_per_second * 6 * count_parameters(model),
                "flops": tokens_per_second * flop_per_token(model.config, length),
                **contender.figures,
            }
        )
    machine = {library: statistics.median(values) for library, values in rates.items() if values}
    return {"size": size, "parameters": count_parameters(model), "machine_flops": machine, "rows": rows}


def show(result: dict, device: str) -> None:
    rows, machine = result["rows"], result["machine_flops"]
    batch, length, _ = MODELS[result["size"]]
    print(f"\n{result['size']}: {result['parameters']:,} parameters, steps of {batch} x {length}")
    for library, rate in machine.items():
        print(f"float32 products by {library}: {rate / 1e9:,.0f} GFLOP/s")
    gpu = find_device(torch.cuda.get_device_name()) if device != "cpu" else None
    shares = [f"of {library}" for library in machine] + (["MFU"] if gpu else [])
    print(
        f"{'':<34}{'tokens/s':>10} {'GFLOP/s 6N':>11} {'':>0}{' '.join(f'{s:>9}' for s in shares)} {'memory':>9} wait"
    )
    for row in rows:
        of = [row["flops_6n"] / rate for rate in machine.values()] + ([row["flops"] / gpu.bf16_flops] if gpu else [])
        name = f"{row['who']} {row['precision']} {row['setting']}"
        wait = f"{row['data_wait']:.2%}" if "data_wait" in row else ""
        print(
            f"{name:<34}{row['tokens_per_second']:>10,.0f} {row['flops_6n'] / 1e9:>11,.0f} "
            f"{' '.join(f'{share:>9.0%}' for share in of)} {row['memory'] / 2**20:>5,.0f} MiB {wait}"
        )
    fastest = {
        who: max((row for row in rows if row["who"] == who), key=lambda row: row["tokens_per_second"])
        for who in ("ours", "theirs")
    }
    for precision in dict.fromkeys(row["precision"] for row in rows):
        ours, theirs = (next(r for r in rows if r["who"] == who and r["precision"] == precision) for who in fastest)
        print(
            f"ours / Trainer, {precision}: {ours['tokens_per_second'] / theirs['tokens_per_second']:.2f} times the "
            f"tokens/s, {ours['memory'] / theirs['memory']:.2f} of the memory"
        )
    ratio = fastest["ours"]["tokens_per_second"] / fastest["theirs"]["tokens_per_second"]
    result["ratio_of_best"] = ratio
    print(f"ours / Trainer, each at its best precision: {ratio:.2f} times the tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="of 5M, 50M, 1B; with commas")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    for name in ("kind", "size", "precision", "setting", "device"):  # for the processes it starts
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        serve(options)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    results = []
    for size in (options.models or ("1B" if device == "cuda" else "5M,50M")).split(","):
        results.append(compare(size, options, device))
        show(results[-1], device)
    print("RESULT " + json.dumps({"machine": machine, "threads": options.threads, "models": results}))


if __name__ == "__main__":
    main()
