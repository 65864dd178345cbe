"""However the work is split over processes, losses, gradient norms, ledger and weights are one process's."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import REPOSITORY
from tests.training.synthetic import tiny_config, write_tokens
from torch.testing._internal.distributed.fake_pg import FakeStore

from aurora_m.model import ArchitectureConfig, Decoder
from aurora_m.training import ParallelConfig, PhaseConfig, build_mesh, parallelize
from aurora_m.training.checkpoint import list_checkpoints
from aurora_m.training.device import pipelined_micro_batch
from aurora_m.training.gradients import local_tensor
from aurora_m.training.parallel import check_model, check_phase
from aurora_m.training.ranks import Ranks
from aurora_m.training.stage import place_model
from aurora_m.workspace import RecipeError, read_json

TOLERANCE = 2e-6  # relative, of losses and gradient norms; measured: 2e-8 and 7e-7
VOCABULARY = 301  # divides by no degree

FAMILIES = {
    "gpt_bigcode": {"family": "gpt_bigcode", "layers": 2, "hidden_size": 32, "heads": 4, "max_positions": 32},
    "llama": {"family": "llama", "layers": 4, "hidden_size": 32, "heads": 4, "kv_heads": 2, "max_positions": 32},
}
# name: processes, family, layout
LAYOUTS: dict[str, tuple[int, str, dict]] = {
    "gpt": (1, "gpt_bigcode", {}),
    "llama": (1, "llama", {}),
    "gpt dp2": (2, "gpt_bigcode", {}),
    "gpt tp2": (2, "gpt_bigcode", {"tensor": 2}),
    "gpt pp2": (2, "gpt_bigcode", {"pipeline": 2}),
    "llama dp2": (2, "llama", {}),
    "llama tp2 without sequence": (2, "llama", {"tensor": 2, "sequence": False}),
    "llama pp2 interleaved": (2, "llama", {"pipeline": 2, "stages_per_rank": 2}),
    "gpt dp2 tp2": (4, "gpt_bigcode", {"tensor": 2}),
    "gpt pp2 tp2": (4, "gpt_bigcode", {"tensor": 2, "pipeline": 2}),
    "llama pp2 dp2": (4, "llama", {"pipeline": 2}),
    "llama tp4": (4, "llama", {"tensor": 4}),
}
CONTROLS = {"gpt_bigcode": "gpt", "llama": "llama"}


def phases() -> list[dict]:
    """Two phases of three steps of four sequences, the second with another mixture."""
    first = {
        "name": "base",
        "tokens": 384,
        "mixture": {"aa": 0.75, "bb": 0.25},
        "sequence_length": 32,
        "tokens_per_step": 128,
        "lr": {"peak": 3e-3, "warmup": "2 steps", "to": 3e-4},
    }
    second = {"name": "CAP", "mixture": {"bb": 0.5, "cc": 0.5}, "lr": {"peak": 2e-3}}
    return [first, first | second]


def a_run(out: Path, tokens: Path, family: str, parallel: dict, **changes) -> dict:
    sections = {"phases": phases(), "checkpoint": {"every": 384, "keep": 9}, "ledger": {"every": 300}, "micro_batch": 2}
    config = sections | {"parallel": parallel}
    return {"out": str(out), "tokens": str(tokens), "base": FAMILIES[family], "config": config} | changes


def run_jobs(folder: Path, jobs: list[dict]) -> list[list[int]]:
    """Exit codes of all ranks of each job."""
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    for job in jobs:
        for run in job["runs"]:
            Path(run["out"]).mkdir(parents=True, exist_ok=True)
    return [json.loads(line) for line in run_module("parallel_job", path).splitlines() if line.startswith("[")]


def run_module(name: str, path: Path) -> str:
    """Runs a module of these tests in an interpreter of its own, whose processes all end with it."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.training.{name}", str(path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, _ = process.communicate(timeout=240)
    finally:
        stop_group(process.pid)
    assert process.returncode == 0
    return out


def stop_group(leader: int) -> None:
    """Ends what a job that hangs has left behind."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def steps(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def bpb(out: Path) -> list[float]:
    return [row["bpb"] for row in pq.read_table(out / "ledger.parquet").to_pylist()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "CAP" / "model" / "model.safetensors")


def same_within_tolerance(a: Path, b: Path) -> None:
    assert [row["tokens_by_domain"] for row in steps(a)] == [row["tokens_by_domain"] for row in steps(b)]
    for value in ("loss", "grad_norm", "loss_by_domain"):
        ours, theirs = ([row[value] for row in steps(out)] for out in (a, b))
        for x, y in zip(ours, theirs, strict=True):
            assert x == pytest.approx(y, rel=TOLERANCE), value
    assert bpb(a) == pytest.approx(bpb(b), rel=TOLERANCE)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return write_odd_tokens(tmp_path_factory.mktemp("parallel") / "tokens")


def write_odd_tokens(folder: Path) -> Path:
    """Tokens of a vocabulary that divides by no degree."""
    write_tokens(folder)
    facts = read_json(folder / "tokens.json")
    facts["tokenizer"]["vocab_size"] = VOCABULARY
    (folder / "tokens.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def runs(tokens, tmp_path_factory) -> Path:
    """A folder per layout, each trained from the same seed on the same tokens."""
    folder = tmp_path_factory.mktemp("layouts")
    jobs = [
        {
            "processes": processes,
            "runs": [
                a_run(folder / name, tokens, family, layout)
                for name, (count, family, layout) in LAYOUTS.items()
                if count == processes
            ],
        }
        for processes in (1, 2, 4)
    ]
    assert run_jobs(folder, jobs) == [[0], [0, 0], [0, 0, 0, 0]]
    return folder


# ---- equal to one process


@pytest.mark.parametrize("name", [name for name, (processes, _, _) in LAYOUTS.items() if processes > 1])
def test_losses_gradient_norms_and_ledger_are_those_of_one_process(runs, name):
    same_within_tolerance(runs / CONTROLS[LAYOUTS[name][1]], runs / name)


@pytest.mark.parametrize("name", ["gpt dp2 tp2", "gpt pp2 tp2", "llama pp2 interleaved", "llama tp4"])
def test_the_exported_model_is_whole_and_the_same(runs, name):
    ours, theirs = weights(runs / name), weights(runs / CONTROLS[LAYOUTS[name][1]])
    assert list(ours) == list(theirs)
    for key, weight in theirs.items():
        # Where a gradient is rounding and nothing else (biases of keys), so is the direction of its step.
        if not key.endswith("c_attn.bias"):
            assert torch.allclose(ours[key], weight, rtol=1e-3, atol=2e-4), key


def test_only_the_main_rank_writes_a_row_per_step(runs):
    for name in LAYOUTS:
        assert [row["step"] for row in steps(runs / name)] == list(range(1, 7)), name
        assert not list((runs / name).glob("error-*"))


def test_gradients_of_every_family_are_those_of_one_process(tmp_path):
    run_module("parallel_families", tmp_path / "found.json")
    found = read_json(tmp_path / "found.json")
    assert len(found) == 30
    assert {name: value for name, value in found.items() if not value < 1e-5} == {}


# ---- checkpoints


def back_to_the_middle(source: Path, target: Path) -> Path:
    """A copy of a run that ended with the checkpoint of its first phase."""
    shutil.copytree(source, target)
    (target / "train.json").unlink()
    shutil.rmtree(target / "CAP")
    return target


@pytest.fixture(scope="module")
def resumed(runs, tokens, tmp_path_factory) -> Path:
    """Runs of four ranks, gone on with after their first phase in other layouts, in the same one, and after a rank's death."""
    folder = tmp_path_factory.mktemp("resumed")
    source = runs / "gpt dp2 tp2"

    def again(name: str, layout: dict, **changes) -> dict:
        return a_run(back_to_the_middle(source, folder / name), tokens, "gpt_bigcode", layout, **changes)

    def onwards(name: str, layout: dict) -> dict:
        run = a_run(folder / name, tokens, "gpt_bigcode", layout, base={"path": str(runs / "gpt" / "base" / "model")})
        return run | {"config": run["config"] | {"phases": phases()[1:]}}

    jobs = [
        {"processes": 4, "runs": [again("same", {"tensor": 2})]},
        {"processes": 1, "runs": [again("one", {}), onwards("base one", {})]},
        {
            "processes": 2,
            "runs": [again("pp2", {"pipeline": 2}), again("dp2", {}), onwards("base pp2", {"pipeline": 2})],
        },
        {"processes": 2, "runs": [again("died", {"tensor": 2}, die=[1, 2])]},
        {"processes": 2, "runs": [again("tp2", {"tensor": 2})]},
    ]
    codes = run_jobs(folder, jobs)
    assert codes[:3] == [[0, 0, 0, 0], [0], [0, 0]] and codes[4] == [0, 0]
    assert codes[3] == [1, -9]
    return folder


@pytest.mark.parametrize("name", ["one", "pp2", "dp2", "tp2"])
def test_a_checkpoint_of_four_ranks_resumes_in_any_layout(runs, resumed, name):
    same_within_tolerance(runs / "gpt dp2 tp2", resumed / name)


def test_an_existing_model_is_read_into_shards_and_trained_on(resumed):
    first, second = (load_file(resumed / name / "initial/model/model.safetensors") for name in ("base one", "base pp2"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    same_within_tolerance(resumed / "base one", resumed / "base pp2")


def test_resume_in_the_same_layout_is_bitwise_equal(runs, resumed):
    ours, theirs = (
        [(row["loss"], row["grad_norm"]) for row in steps(out)] for out in (runs / "gpt dp2 tp2", resumed / "same")
    )
    assert ours == theirs
    assert all(
        torch.equal(weights(resumed / "same")[key], weight) for key, weight in weights(runs / "gpt dp2 tp2").items()
    )


def test_a_rank_that_dies_ends_the_others_with_one_clear_message(resumed):
    message = (resumed / "died" / "error-0.txt").read_text()
    assert message.startswith("LostRankError: rank 0 lost the others (") and "start the same job again" in message
    assert not list(resumed.rglob("*incomplete*"))


def test_what_a_rank_writes_is_checked_by_its_hash(runs):
    record = read_json(list_checkpoints(runs / "gpt dp2 tp2" / "CAP")[-1] / "state.json")
    assert sorted(record["files"]) == [".metadata", *(f"__{rank}_0.distcp" for rank in range(4))]


# ---- what does not divide


def model(**changes):
    return ArchitectureConfig(**FAMILIES["llama"] | changes).model_config_for(VOCABULARY)


@pytest.mark.parametrize(
    ("parallel", "processes", "message"),
    [
        ({"tensor": 3}, 4, "pipeline 1 x data auto x tensor 3 do not make 4 ranks; start a multiple of 3"),
        ({"data": 2, "pipeline": 2}, 2, "pipeline 2 x data 2 x tensor 1 do not make 2 ranks; start 4"),
        ({"tensor": 8}, 8, "parallel.tensor 8 does not divide the model's heads 4; choose 2 or 4"),
        ({"tensor": 2}, 10, "hidden_size 32 is not a multiple of the data degree 5"),
        ({"pipeline": 4, "stages_per_rank": 2}, 4, "8 pipeline stages need as many layers, and the model has 4"),
    ],
)
def test_degrees_that_do_not_fit_are_refused_with_the_fix(parallel, processes, message):
    with pytest.raises(RecipeError, match=message):
        check_model(model(), ParallelConfig(**parallel), processes)


def test_compiling_with_tensor_ranks_is_refused():
    config = tiny_config(compile=True, parallel={"tensor": 2})
    ranks = type("TwoTensorRanks", (Ranks,), {"degree": lambda self, dimension: 2, "count": 2})(mesh=object())
    with pytest.raises(RecipeError, match="compile does not work with parallel.tensor above 1"):
        place_model(Decoder(model()), config, torch.device("cpu"), ranks, None, torch.float32, 0)


@pytest.mark.parametrize(
    ("changes", "parallel", "message"),
    [
        ({"tokens_per_step": 96}, {}, "3 sequences per step cannot be dealt to 4 data ranks.*multiple of 128"),
        ({}, {"tensor": 3}, "sequence_length 32 is not a multiple of parallel.tensor 3"),
        ({}, {"pipeline": 2, "stages_per_rank": 2}, "deals 1 sequences per data rank to 2 pipeline ranks"),
    ],
)
def test_phases_that_cannot_be_dealt_are_refused_with_the_fix(changes, parallel, message):
    phase = PhaseConfig.model_validate(phases()[0] | changes)
    with pytest.raises(RecipeError, match=message):
        check_phase(
            phase,
            ParallelConfig(data=4, **parallel),
            4 * math.prod(parallel.get(name, 1) for name in ("tensor", "pipeline")),
        )


def test_micro_batches_of_a_pipeline_are_equal_and_many():
    assert pipelined_micro_batch(8, 12, 1) == 8
    assert pipelined_micro_batch(8, 64, 2) == 8
    assert pipelined_micro_batch(8, 12, 2) == 1
    assert all(24 % pipelined_micro_batch(most, 24, 2) == 0 for most in range(1, 24))


def test_alone_nothing_is_parallel():
    assert tiny_config().parallel.degrees(1) == (1, 1, 1)


@pytest.mark.parametrize("parallel", [{"tensor": 4}, {"pipeline": 4, "tensor": 2}, {}])
def test_a_model_over_128_ranks_is_laid_out_without_weights_or_processes(parallel):
    config, distributed = ParallelConfig(**parallel), torch.distributed
    distributed.init_process_group("fake", store=FakeStore(), rank=37, world_size=128)
    try:
        with torch.device("meta"):
            whole = Decoder(model(hidden_size=128, ffn_size=256))
        parameters = sum(parameter.numel() for parameter in whole.parameters())
        split = parallelize(whole, build_mesh(config, "cpu", 128), config)
        own = sum(local_tensor(parameter).numel() for parameter in split.parameters())
    finally:
        distributed.destroy_process_group()
    # Stages differ in size, and each rank has some rows of what does not divide.
    assert 0.5 * parameters / 128 < own < 1.5 * parameters / 128
