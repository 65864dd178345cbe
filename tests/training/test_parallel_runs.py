"""What one process does, many do alike: bfloat16, activation checkpointing, adapters, bad steps, export."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.training.test_parallel import FAMILIES, VOCABULARY, a_run, bpb, phases, run_jobs, steps, write_odd_tokens
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from aurora_m.model import ArchitectureConfig, Decoder, LoraConfig, load_model, read_config, save_model
from aurora_m.training import ParallelConfig, build_mesh, check_model, parallelize
from aurora_m.training.checkpoint import _SafeReader, list_checkpoints
from aurora_m.workspace import RecipeError, read_json

BFLOAT16_TOLERANCE = 3e-4  # relative, of losses and bpb; measured: 6e-5 (gradient norms: 2e-3)
PLACES = {"one": {}, "dp2": {}, "tp2": {"tensor": 2}, "pp2": {"pipeline": 2}, "dp2 tp2": {"tensor": 2}}
PROCESSES = {"one": 1, "dp2": 2, "tp2": 2, "pp2": 2, "dp2 tp2": 4}

# name: settings of the train section, planted faults, layouts
RUNS: dict[str, tuple[dict, dict, list[str]]] = {
    "bfloat16": ({"precision": "bfloat16"}, {}, ["one", "dp2", "dp2 tp2"]),
    "full": ({"activation_checkpointing": "full"}, {}, ["one", "dp2 tp2"]),
    "selective": ({"activation_checkpointing": "selective"}, {}, ["tp2", "pp2"]),
    "nan": ({}, {"nan": 4}, ["one", "dp2", "tp2", "pp2", "dp2 tp2"]),
    "lora": ({"lora": {"rank": 4, "alpha": 8}}, {}, ["one", "dp2", "pp2", "dp2 tp2"]),
    "merge": ({"merge": {"budget": {"aa": 0.5}, "base_shares": [0.2]}}, {}, ["one", "dp2"]),
    "poison": ({"guardian": {"patience": 2}}, {"poison": [4, 5]}, ["one", "pp2", "dp2 tp2"]),
}
FAMILY = {"bfloat16": "gpt_bigcode", "lora": "gpt_bigcode"}
MAX_SHARD_BYTES = 40_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder per run and layout, from the same seed on the same tokens."""
    folder = tmp_path_factory.mktemp("runs")
    tokens = write_odd_tokens(folder / "tokens")
    base = Decoder(ArchitectureConfig(**FAMILIES["gpt_bigcode"]).model_config_for(VOCABULARY))
    base.init_weights(5)
    save_model(base, folder / "base")
    jobs: list[dict] = [{"processes": count, "runs": []} for count in (1, 2, 4)]
    for name, (settings, faults, places) in RUNS.items():
        for place in places:
            run = a_run(folder / f"{name} {place}", tokens, FAMILY.get(name, "llama"), PLACES[place], **faults)
            run["config"] |= {"phases": six_steps(), "checkpoint": {"every": 128, "keep": 9}, **settings}
            run |= {"base": {"path": str(folder / "base")}} if name == "lora" else {}
            next(job for job in jobs if job["processes"] == PROCESSES[place])["runs"].append(run)
    jobs[1]["export"] = {"out": str(folder / "export"), "max_shard_bytes": MAX_SHARD_BYTES}
    assert run_jobs(folder, jobs) == [[0], [0, 0], [0, 0, 0, 0]]
    return folder


def six_steps() -> list[dict]:
    """One phase; not called base, so that the first weights are written out too."""
    return [phases()[0] | {"name": "CAP", "tokens": 768, "mixture": {"aa": 0.5, "cc": 0.5}}]


def pairs(*names: str) -> list[tuple[str, str]]:
    """Each run of these on several ranks, and the same on one."""
    controls = {"selective": "full one"}
    return [
        (f"{name} {place}", controls.get(name, f"{name} one"))
        for name in names
        for place in RUNS[name][2]
        if place != "one"
    ]


def rows(out: Path, kind: str) -> list[dict]:
    return [row for row in steps(out) if row["kind"] == kind]


def weights(out: Path, phase: str = "CAP") -> dict[str, torch.Tensor]:
    return load_file(out / phase / "model" / "model.safetensors")


# ---- the same weights to begin with, and at the end


def same_weights(ours: Path, theirs: Path, atol: float) -> None:
    first, second = weights(ours), weights(theirs)
    assert first.keys() == second.keys()
    for name, weight in second.items():
        assert torch.allclose(first[name], weight, rtol=1e-3, atol=atol), name


@pytest.mark.parametrize(("ours", "theirs"), pairs("nan"))
def test_the_first_weights_are_the_same_in_every_layout_bit_for_bit(runs, ours, theirs):
    """And so are the files, which many ranks write tensor by tensor."""
    first, second = (sorted((runs / out / "initial" / "model").iterdir()) for out in (ours, theirs))
    assert [path.name for path in first] == [path.name for path in second]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(first, second, strict=True))


def test_an_export_from_two_ranks_takes_less_memory_than_a_file(runs):
    measured = read_json(runs / "export" / "memory.json")
    files = [path.stat().st_size for path in (runs / "export").glob("model-*.safetensors")]
    assert len(files) > 2 and max(files) > 0.9 * MAX_SHARD_BYTES
    assert measured["peak"] < max(files)
    weights = load_model(runs / "export").state_dict()
    expected = Decoder(read_config(runs / "export"))
    expected.init_weights(0)
    assert all(torch.equal(weight, weights[name]) for name, weight in expected.state_dict().items())


@pytest.mark.parametrize(("ours", "theirs"), pairs("full", "selective", "lora", "nan", "poison"))
def test_losses_and_weights_are_those_of_one_process(runs, ours, theirs):
    taken = [[row for row in steps(runs / out) if row["kind"] == "step"] for out in (ours, theirs)]
    assert [row["step"] for row in taken[0]] == [row["step"] for row in taken[1]]
    for value in ("loss", "grad_norm"):
        first, second = ([row[value] for row in part] for part in taken)
        assert first == pytest.approx(second, rel=2e-6), value
    same_weights(runs / ours, runs / theirs, 2e-4)


# ---- bfloat16: layers are gathered in it, shards and sums over ranks are float32


@pytest.mark.parametrize(("ours", "theirs"), pairs("bfloat16"))
def test_bfloat16_over_ranks_is_that_of_one_process_within_its_rounding(runs, ours, theirs):
    for value in ("loss", "grad_norm"):
        first, second = ([row[value] for row in steps(runs / out)] for out in (ours, theirs))
        assert first == pytest.approx(second, rel=BFLOAT16_TOLERANCE * (30 if value == "grad_norm" else 1)), value
        assert first != second
    assert bpb(runs / ours) == pytest.approx(bpb(runs / theirs), rel=BFLOAT16_TOLERANCE)
    same_weights(runs / ours, runs / theirs, 2e-2)


class Traffic(TorchDispatchMode):
    """Bytes that collectives hand over, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            name = func._schema.name.removeprefix("c10d::_").removesuffix("_")
            self.bytes[name] = self.bytes.get(name, 0) + args[0].nbytes
        return func(*args, **(kwargs or {}))


def traffic(dtype: torch.dtype) -> dict[str, int]:
    """Of a forward and backward pass of one rank of two."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        sizes = {"layers": 4, "hidden_size": 64, "heads": 4, "max_positions": 32}
        model = Decoder(ArchitectureConfig(**sizes).model_config_for(64))
        config = ParallelConfig()
        split = parallelize(model, build_mesh(config, "cpu", 2), config, dtype=dtype)
        assert all(parameter.dtype == torch.float32 for parameter in split.parameters())
        with Traffic() as counted, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            split(torch.zeros((2, 32), dtype=torch.int64)).sum().backward()
        gradients = [parameter.grad for parameter in split.parameters() if parameter.grad is not None]
        assert gradients and all(gradient.dtype == torch.float32 for gradient in gradients)
    finally:
        torch.distributed.destroy_process_group()
    return counted.bytes


def test_bfloat16_halves_what_is_gathered_and_sums_in_float32():
    wide, narrow = traffic(torch.float32), traffic(torch.bfloat16)
    # Layers are gathered for both passes; embedding, positions and last norm, once and in float32.
    root = 4 * (64 * 64 + 32 * 64 + 2 * 64)
    assert narrow["allgather_base"] - root == (wide["allgather_base"] - root) / 2
    assert narrow["reduce_scatter_base"] == wide["reduce_scatter_base"]


# ---- adapters


@pytest.mark.parametrize("place", RUNS["lora"][2])
def test_what_is_exported_is_the_base_with_the_adapters_merged(runs, place):
    base, out = load_file(runs / "base" / "model.safetensors"), runs / f"lora {place}"
    first, last = weights(out, "initial"), weights(out)
    assert base.keys() == first.keys() == last.keys()
    assert all(torch.equal(first[name], base[name]) for name in base)
    changed = {name for name in base if not torch.equal(last[name], base[name])}
    assert changed == {name for name in base if ".h." in name and base[name].dim() == 2}


def test_checkpoints_of_many_ranks_hold_adapters_and_no_base(runs):
    saved = list_checkpoints(runs / "lora dp2 tp2" / "CAP")[-1]
    names = _SafeReader(saved).read_metadata().state_dict_metadata
    assert names and all(".lora_" in name for name in names if name.startswith(("model.", "optimizer.")))


def test_an_adapter_that_cannot_be_sharded_is_refused_with_the_fix():
    model = ArchitectureConfig(**FAMILIES["llama"]).model_config_for(VOCABULARY)
    with pytest.raises(RecipeError, match=r"lora\.rank 6 is not a multiple of the data degree 4.*nearest is 8"):
        check_model(model, ParallelConfig(tensor=2), 8, LoraConfig(rank=6, alpha=8))
    check_model(model, ParallelConfig(), 8, LoraConfig(rank=6, alpha=8))


# ---- merging


@pytest.mark.parametrize(("ours", "theirs"), pairs("merge"))
def test_the_main_rank_merges_while_the_others_wait(runs, ours, theirs):
    first, second = (read_json(runs / out / "merge.json") for out in (ours, theirs))
    assert [row["name"] for row in first["candidates"]] == [row["name"] for row in second["candidates"]]
    for one, other in zip(first["candidates"], second["candidates"], strict=True):
        assert one["learning"] == pytest.approx(other["learning"], rel=1e-3)
    assert first["chosen"] == second["chosen"] == read_json(runs / ours / "train.json")["merge"]["chosen"]


# ---- bad steps


@pytest.mark.parametrize("out", [f"nan {place}" for place in RUNS["nan"][2]])
def test_all_ranks_leave_out_a_step_that_is_bad_on_one(runs, out):
    assert [row["step"] for row in rows(runs / out, "skipped")] == [4]
    assert [row["step"] for row in steps(runs / out)] == list(range(1, 7))


@pytest.mark.parametrize(("ours", "theirs"), pairs("poison"))
def test_all_ranks_go_back_together_and_leave_out_the_same_documents(runs, ours, theirs):
    for out in (ours, theirs):
        (row,) = rows(runs / out, "went back")
        assert row["back_to"] == "CAP/step-00000003"
    first, second = (read_json(runs / out / "CAP" / "quarantine.json") for out in (ours, theirs))
    assert first == second and first[0]["documents"]["cc"]
