"""Every model family against transformers, in one run: do logits and greedy text agree, how fast, how much memory.

Models of random weights (hidden 256, 4 layers, 4 heads, vocabulary 8192), float32; the largest difference of logits for
`plain`: 8 rows of 512 tokens; `packed`: one row of four documents, against each document alone in transformers;
`cached`: the packed row in four steps with the key-value cache. `greedy`: 24 tokens after 8 prompts of different
lengths. `tokens/CPU s`: forward and backward without the head, 2 rows of 512 tokens, the two taking turns, median; on
one thread by default, whose figures other work on the machine disturbs least.
`import`: peak memory beyond the weights while a model of about 230 MB, stored in bfloat16, is loaded as float32, each
in a process of its own, in megabytes and as a share of the largest tensor.

    python benchmarks/families.py [--families bloom qwen3] [--repetitions 5] [--threads 1]
"""

import argparse
import datetime
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import torch
import transformers
from torch import Tensor

from aurora_m.model import ArchitectureConfig, Decoder, KeyValueCache, generate, load_model, save_model
from aurora_m.model.config import Family

VOCABULARY, LENGTH, EOD = 8192, 512, 0
DOCUMENTS = [200, 150, 100, 62]
SIZES: dict[str, Any] = {"layers": 4, "hidden_size": 256, "heads": 4, "max_positions": LENGTH}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "starcoder2": {"kv_heads": 2, "sliding_window": 128},
    "llama": {"kv_heads": 2},
    "mistral": {"kv_heads": 2, "sliding_window": 128},
    "qwen2": {"kv_heads": 2},
    "qwen3": {"kv_heads": 2, "head_dim": 96},
    "olmo2": {"kv_heads": 2},
}
_LOAD = """
import sys, torch
from pathlib import Path
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
if sys.argv[1] == "ours":
    from aurora_m.model import load_model as load
else:
    import transformers
    transformers.utils.logging.disable_progress_bar()
    load = lambda folder: transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
load(Path(sys.argv[2]))
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS:")
model = load(Path(sys.argv[3]))
peak = kilobytes("VmHWM:")
print((peak - before) * 1024 - sum(parameter.nbytes for parameter in model.parameters()))
"""


def pair(family: str, folder: Path) -> tuple[Decoder, Any]:
    """Our model and transformers' with the same random weights, norms around one."""
    values = SIZES | {"family": family} | OF_FAMILY.get(family, {})
    ours = Decoder(ArchitectureConfig.model_validate(values).model_config_for(VOCABULARY))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            middle = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.normal_(middle, 0.05, generator=generator)
    save_model(ours, folder, eod_id=EOD)
    return load_model(folder), transformers.AutoModelForCausalLM.from_pretrained(folder)


@torch.no_grad()
def compare(ours: Decoder, theirs: Any) -> dict[str, Any]:
    """The largest differences of logits, and whether greedy text is the same."""
    ids = torch.randint(1, VOCABULARY, (8, LENGTH), generator=torch.Generator().manual_seed(1))
    row = ids[:1]
    apart = torch.cat([theirs(part).logits for part in row.split(DOCUMENTS, dim=1)], dim=1)
    documents = torch.cat([torch.full((length,), number) for number, length in enumerate(DOCUMENTS)]).int()[None]
    positions = torch.cat([torch.arange(length) for length in DOCUMENTS]).int()[None]
    cache = KeyValueCache(ours.config, 1, LENGTH, torch.float32, "cpu")
    ends = [0, 128, 129, 300, LENGTH]
    pieces = [slice(start, end) for start, end in itertools.pairwise(ends)]
    steps = [ours(row[:, piece], positions[:, piece], documents[:, piece], cache) for piece in pieces]
    prompts = [row[0, : 5 + 17 * number].tolist() for number in range(8)]
    same = 0
    for prompt, answer in zip(prompts, generate(ours, prompts, 24, EOD, batch_size=4), strict=True):
        given = torch.tensor([prompt])
        written = theirs.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=24, do_sample=False, pad_token_id=EOD
        )[0, len(prompt) :].tolist()
        same += answer == (written[: written.index(EOD)] if EOD in written else written)
    return {
        "plain": float((ours.logits(ours(ids)) - theirs(ids).logits).abs().max()),
        "packed": float((ours.logits(ours(row, positions, documents)) - apart).abs().max()),
        "cached": float((ours.logits(torch.cat(steps, dim=1)) - apart).abs().max()),
        "greedy": f"{same} of {len(prompts)}",
    }


def speed(ours: Decoder, theirs: Any, repetitions: int) -> tuple[float, float]:
    """Tokens per CPU second, ours and transformers', of the decoder without its head, forward and backward."""
    ids = torch.randint(1, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(2))

    def run(forward: Any) -> float:
        began = time.process_time()
        hidden: Tensor = forward()
        hidden.sum().backward()
        return time.process_time() - began

    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for repetition in range(repetitions + 1):
        taken = {
            "ours": run(lambda: ours(ids)),
            "theirs": run(lambda: theirs.base_model(ids, use_cache=False).last_hidden_state),
        }
        for name in seconds:
            if repetition:  # the first round warms up
                seconds[name].append(taken[name])
    return ids.numel() / statistics.median(seconds["ours"]), ids.numel() / statistics.median(seconds["theirs"])


def import_memory(family: str, folder: Path) -> dict[str, float]:
    """Peak bytes beyond the weights while loading, ours and transformers', and the bytes of the largest tensor."""
    values = SIZES | {"family": family, "hidden_size": 1024, "heads": 8, "tied_embeddings": True}
    largest = 0
    for name, layers in (("tiny", 1), ("model", 4)):
        model = Decoder(ArchitectureConfig.model_validate(values | {"layers": layers}).model_config_for(VOCABULARY))
        model.init_weights(0)
        save_model(model, folder / name, dtype=torch.bfloat16, max_shard_bytes=60_000_000)
        largest = max(parameter.nbytes for parameter in model.parameters())
    del model
    measured = {"largest": float(largest)}
    for who in ("ours", "theirs"):
        command = [sys.executable, "-c", _LOAD, who, str(folder / "tiny"), str(folder / "model")]
        measured[who] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(get_args(Family)))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(
        f"{datetime.date.today()}, {platform.processor() or platform.machine()}, {arguments.threads} threads, ", end=""
    )
    print(f"torch {torch.__version__}, transformers {transformers.__version__}\n")
    print(
        "| family | plain | packed | cached | greedy | tokens/CPU s | times transformers | import MB | transformers' |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    results: dict[str, Any] = {}
    for family in arguments.families:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = pair(family, Path(folder) / "pair")
            agreement = compare(ours, theirs)
            fast, peer = speed(ours, theirs, arguments.repetitions)
            memory = import_memory(family, Path(folder))
        differences = " | ".join(f"{agreement[name]:.1e}" for name in ("plain", "packed", "cached"))
        ratio = f"{fast:,.0f} | {fast / peer:.2f}"
        beyond = f"{memory['ours'] / 1e6:.0f} ({memory['ours'] / memory['largest']:.0%}) | {memory['theirs'] / 1e6:.0f}"
        print(f"| {family} | {differences} | {agreement['greedy']} | {ratio} | {beyond} |", flush=True)
        results[family] = agreement | {"tokens_per_cpu_second": fast, "ratio": fast / peer, "import": memory}
    print("RESULT " + json.dumps(results))


if __name__ == "__main__":
    main()
