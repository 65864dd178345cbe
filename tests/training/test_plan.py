"""A plan's memory is what a run takes; its traffic and its sums are what can be reckoned by hand."""

import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.small_run import aurora
from tests.training.synthetic import tiny_config
from torch.profiler import ProfilerActivity, profile

from aurora_m.model import ArchitectureConfig, Decoder
from aurora_m.training.config import OptimizerConfig, ParallelConfig
from aurora_m.training.costs import flop_per_token, idle_share, sending_seconds, training_costs
from aurora_m.training.devices import DEVICES, known_device
from aurora_m.training.optimizer import build_optimizer
from aurora_m.training.plan import candidate_meshes, parse_mesh, plan_training, rehearse_all
from aurora_m.training.plan_words import describe_plan, plan_to_json
from aurora_m.training.ranks import SINGLE
from aurora_m.training.rehearsal import Layout, dealt_batch, rehearse
from aurora_m.training.trainer import accumulate_gradients
from aurora_m.workspace import RecipeError

MODEL = ArchitectureConfig(layers=4, hidden_size=64, heads=4, max_positions=128).model_config_for(512)


def layout(ranks=1, micro_batches=3, **parallel):
    return Layout(MODEL, ParallelConfig(**parallel), ranks, 128, 2, micro_batches, torch.float32, on_cpu=True)


def planned_config(**changes):
    phase = tiny_config().phases[0].model_dump() | {"tokens": 2560, "tokens_per_step": 256}
    return tiny_config(**({"phases": [phase], "precision": "bfloat16"} | changes))


def test_memory_is_that_of_a_measured_step():
    planned = rehearse(layout(), rank=0)
    model = Decoder(MODEL)
    model.init_weights(0)
    optimizer = build_optimizer(model, OptimizerConfig())
    weights = sum(one.nbytes for one in model.parameters())
    states = sum(one.nbytes for state in optimizer.state.values() for one in state.values())
    assert (planned.weights, planned.gradients, planned.optimizer) == (weights, weights, states)
    batch = dealt_batch(layout(), 1, SINGLE)
    accumulate_gradients(model, batch, 2, torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        accumulate_gradients(model, batch, 2, torch.float32)
    live = highest = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            highest = max(highest, live)
    assert planned.peak == pytest.approx(2 * weights + states + highest, rel=0.1)


def test_sharded_weights_and_traffic_are_as_reckoned():
    alone, sharded, pipelined = rehearse_all(
        [(layout(), 0), (layout(4), 0), (layout(4, 8, pipeline=2, tensor=2, data=1), 0)]
    )
    assert sharded.weights == pytest.approx(alone.weights / 4, rel=0.02)
    assert sharded.optimizer == pytest.approx(alone.optimizer / 4, rel=0.02)
    # Layers are gathered for the forward and for the backward pass, embedding and last norm once; all gradients are
    # reduced, each micro batch: three fourths of it goes out.
    layers = sum(one.numel() * 4 for one in Decoder(MODEL).layers.parameters())
    assert sharded.sent["data"] == pytest.approx(3 * 0.75 * (2 * alone.weights + layers), rel=0.05)
    # Hidden states go on, gradients come back, which the first rank does not send: 8 micro batches, half the tokens each;
    # and the tied embedding's gradient goes around.
    hidden = 8 * 2 * 64 * 64 * 4
    embedding = 512 * 64 * 4 / 2
    assert pipelined.sent["pipeline"] == pytest.approx(hidden + embedding, rel=0.05)
    assert pipelined.sent["tensor"] > 0


def test_costs_are_tokens_times_flop_over_the_assumed_speed():
    config, device = tiny_config(), known_device("H100")
    costs = training_costs(config, MODEL, device, 2, 0.4 * device.bf16_flops, 3.0)
    tokens = sum(phase.steps * phase.tokens_per_step for phase in config.phases)
    assert costs.tokens == tokens
    flop = sum(p.steps * p.tokens_per_step * flop_per_token(MODEL, p.sequence_length) for p in config.phases)
    assert costs.device_hours == pytest.approx(flop / (0.4 * device.bf16_flops) / 3600)
    assert costs.money == pytest.approx(3 * costs.device_hours)
    assert costs.days == pytest.approx(costs.device_hours / 48)
    assert costs.kilowatt_hours == pytest.approx(0.7 * costs.device_hours)


def test_flop_per_token_is_as_reckoned_by_hand():
    # 12 H^2 a layer, the embedding (tied), positions; biases and norms.
    layer = 12 * 64**2 - 2 * 48 * 64  # one key and one value head of 16 instead of four
    norms = 4 * (4 * 64 + 64 + 2 * 16 + 64 + 256 + 64) + 2 * 64
    weights = 4 * layer + 512 * 64 + 128 * 64 + norms
    assert flop_per_token(MODEL, 128) == 6 * weights + 12 * 4 * 64 * 128


def test_a_pipeline_idles_while_it_fills_and_empties():
    assert idle_share((4, 1, 1), 8, 1) == pytest.approx(3 / 11)
    assert idle_share((4, 1, 1), 8, 2) == pytest.approx(3 / 19)
    assert idle_share((1, 4, 1), 8, 1) == 0


def test_rings_in_a_machine_are_as_fast_as_its_links_and_others_as_its_network():
    device, network = known_device("h100"), 25e9  # 450 GB/s among 8
    assert sending_seconds({"tensor": 450}, (1, 16, 8), device, network) == pytest.approx(1e-9)
    # Data ranks are 8 apart: one of each ring in a machine. 4 apart: two, so two network links.
    assert sending_seconds({"data": 25}, (1, 16, 8), device, network) == pytest.approx(1e-9)
    assert sending_seconds({"data": 50}, (1, 16, 4), device, network) == pytest.approx(1e-9)
    assert sending_seconds({"data": 200}, (1, 16, 1), device, network) == pytest.approx(1e-9)
    assert sending_seconds({"data": 450}, (1, 8, 1), device, network) == pytest.approx(1e-9)
    # Pipeline ranks hand to one neighbour, in the next machine or in the same.
    assert sending_seconds({"pipeline": 25}, (2, 8, 1), device, network) == pytest.approx(1e-9)
    assert sending_seconds({"pipeline": 450}, (2, 2, 2), device, network) == pytest.approx(1e-9)


def test_a_plan_ranks_what_fits_first_and_says_why_others_cannot_be():
    config = planned_config(parallel={"tensor": 3})
    small = replace(known_device("h100"), memory_bytes=700_000)
    plan = plan_training(config, MODEL, small, 2, price=2.0, network_bytes=25e9)
    assert plan.refused == [("1 x 1 x 3", "parallel: pipeline 1 x data auto x tensor 3 do not make 2 ranks; "
        "start a multiple of 3 or change the degrees")]  # fmt: skip
    assert [one.fits for one in plan.meshes] == sorted((one.fits for one in plan.meshes), reverse=True)
    assert not plan.meshes[-1].fits
    console = Console(width=80, file=io.StringIO())
    console.print(describe_plan(plan))
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "does not fit: its peak is" in text
    assert "1 x 1 x 3 cannot be: parallel" in text
    assert "MFU 40%" in text
    assert "…" not in text  # nothing is cut off at 80 columns
    facts = json.loads(plan_to_json(plan))
    assert facts["meshes"][0]["bytes"]["peak"] == plan.meshes[0].usage.peak
    assert facts["meshes"][0]["money"] == pytest.approx(2 * facts["meshes"][0]["device_hours"])
    assert facts["refused"][0]["mesh"] == "1 x 1 x 3"


def test_tables_fit_80_columns_whatever_the_size():
    plan = plan_training(planned_config(), MODEL, known_device("h100"), 1)
    (one,) = plan.meshes
    costs = replace(
        one.costs, days=12_345.6, device_hours=123_456_789.0, kilowatt_hours=99_999_999.0, money=999_999_999.0
    )
    layout = replace(one.layout, ranks=65_536, parallel=ParallelConfig(pipeline=16, tensor=8))
    usage = replace(one.usage, weights=10**12, peak=3 * 10**12)
    large = replace(one, costs=costs, layout=layout, usage=usage, sent={"data": 10**15}, fits=False)
    console = Console(width=80, file=io.StringIO())
    console.print(describe_plan(replace(plan, meshes=[large])))
    assert "…" not in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_where_sending_takes_longer_than_computing_it_is_the_time():
    config = planned_config()
    meshes = [ParallelConfig(data=2)]
    slow, fast = (
        plan_training(config, MODEL, known_device("h100"), 2, meshes=meshes, mfu=mfu).meshes[0] for mfu in (1.0, 1e-6)
    )
    tokens = config.phases[0].tokens_per_step
    assert slow.sending_seconds > slow.computing_seconds
    assert slow.costs.days * 86400 == pytest.approx(slow.costs.tokens / tokens * slow.sending_seconds)
    assert fast.costs.days * 86400 == pytest.approx(fast.costs.tokens / tokens * fast.computing_seconds)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"mfu": 40}, {}, "--mfu 40: expected a share"),
        ({"price": -1}, {}, "--price-per-gpu-hour -1: expected 0 or more"),
        ({"network_bytes": 0}, {}, "--network-gbit 0: expected more than 0"),
        ({"meshes": [ParallelConfig(tensor=8)]}, {}, "parallel.tensor 8 does not divide the model's heads 4"),
        ({}, {"precision": "float32"}, "float32: the table knows h100's bf16 peak only"),
        ({}, {"lora": {"rank": 4, "alpha": 8}}, "train.lora: a plan is of training all weights"),
    ],
)
def test_impossible_wishes_are_refused(settings, changes, message):
    config = planned_config(**changes)
    with pytest.raises(RecipeError, match=message):
        plan_training(config, MODEL, known_device("h100"), 8, **settings)


def test_meshes_are_written_as_three_numbers_whose_product_is_the_devices():
    assert parse_mesh("4x8x4", 128).degrees(128) == (4, 8, 4)
    with pytest.raises(RecipeError, match="--mesh '4x8': expected pipeline x data x tensor"):
        parse_mesh("4x8", 32)
    with pytest.raises(RecipeError, match="do not make 33 ranks"):
        parse_mesh("4x8x1", 33)


def test_a_base_that_is_not_fetched_is_named_with_the_way_out(tmp_path):
    done = aurora(
        "plan", REPOSITORY / "recipes/aurora-m-15b.yaml", "--devices", "128", "--device", "h100", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "bigcode/starcoderplus is not a folder here" in done.stderr
    assert "--base-config" in done.stderr


def test_the_recipes_own_mesh_comes_first_and_none_comes_twice():
    own = ParallelConfig(tensor=4, pipeline=4)
    meshes = candidate_meshes(own, DEVICES["h100"], 128)
    assert meshes[0] is own
    degrees = [one.degrees(128) for one in meshes]
    assert len(set(degrees)) == len(degrees)
