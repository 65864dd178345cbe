"""A plan's memory is what a run takes; its traffic and its sums are what can be reckoned by hand."""

import pytest
import torch
from tests.training.synthetic import tiny_config
from torch.profiler import ProfilerActivity, profile

from aurora_m.model import ArchitectureConfig, Decoder
from aurora_m.training.config import OptimizerConfig, ParallelConfig
from aurora_m.training.devices import DEVICES, find_device
from aurora_m.training.optimizer import build_optimizer
from aurora_m.training.plan import (
    candidate_meshes,
    flop_per_token,
    idle_share,
    parse_mesh,
    rehearse_all,
    training_costs,
)
from aurora_m.training.ranks import SINGLE
from aurora_m.training.rehearsal import Layout, _batch, rehearse
from aurora_m.training.trainer import accumulate_gradients
from aurora_m.workspace import RecipeError

MODEL = ArchitectureConfig(layers=4, hidden_size=64, heads=4, max_positions=128).model_config_for(512)


def layout(ranks=1, micro_batches=3, **parallel):
    return Layout(MODEL, ParallelConfig(**parallel), ranks, 128, 2, micro_batches, torch.float32, on_cpu=True)


def test_memory_is_that_of_a_measured_step():
    planned = rehearse(layout(), rank=0)
    model = Decoder(MODEL)
    model.init_weights(0)
    optimizer = build_optimizer(model, OptimizerConfig())
    weights = sum(one.nbytes for one in model.parameters())
    states = sum(one.nbytes for state in optimizer.state.values() for one in state.values())
    assert (planned.weights, planned.gradients, planned.optimizer) == (weights, weights, states)
    batch = _batch(layout(), 1, SINGLE)
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
    config, device = tiny_config(), find_device("H100")
    costs = training_costs(config, MODEL, device, 2, 0.4, 3.0)
    tokens = sum(phase.steps * phase.tokens_per_step for phase in config.phases)
    assert costs.tokens == tokens
    flop = sum(p.steps * p.tokens_per_step * flop_per_token(MODEL, p.sequence_length) for p in config.phases)
    assert costs.device_hours == pytest.approx(flop / (0.4 * device.bf16_flops) / 3600)
    assert costs.money == pytest.approx(3 * costs.device_hours)
    assert costs.days == pytest.approx(costs.device_hours / 48)


def test_a_pipeline_idles_while_it_fills_and_empties():
    assert idle_share(layout(4, 8, pipeline=4)) == pytest.approx(3 / 11)
    assert idle_share(layout(4, 8)) == 0


def test_unknown_devices_and_meshes_are_refused_with_what_is_known():
    with pytest.raises(RecipeError, match="'h900' is not in the table; known are a100, "):
        find_device("h900")
    with pytest.raises(RecipeError, match="--mesh '4x8': expected pipeline x data x tensor"):
        parse_mesh("4x8", 32)
    with pytest.raises(RecipeError, match="do not make 33 ranks"):
        parse_mesh("4x8x1", 33)


def test_the_recipes_own_mesh_comes_first_and_none_comes_twice():
    own = ParallelConfig(tensor=4, pipeline=4)
    meshes = candidate_meshes(own, DEVICES["h100"], 128)
    assert meshes[0] is own
    degrees = [one.degrees(128) for one in meshes]
    assert len(set(degrees)) == len(degrees)
