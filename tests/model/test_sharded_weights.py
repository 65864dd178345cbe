"""Weights come into a sharded model part by part: every process reads the files and keeps its own rows."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from aurora_m.model import ArchitectureConfig, Decoder, load_model, save_model
from aurora_m.model.weights import load_weights, read_config

WORLD = 3  # divides neither the vocabulary nor the heads


def _load_sharded(rank: int, rendezvous: Path, folders: list[Path]) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORLD)
    try:
        mesh = init_device_mesh("cpu", (WORLD,))
        for folder in folders:
            with torch.device("meta"):
                model = Decoder(read_config(folder))
            for layer in model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
            model.to_empty(device="cpu")
            load_weights(model, folder)
            whole = dict(load_model(folder).named_parameters())
            for name, parameter in model.named_parameters():
                assert isinstance(parameter, DTensor)
                assert torch.equal(parameter.full_tensor(), whole[name]), name
        dist.barrier()
    finally:
        dist.destroy_process_group()
    # Threads of the group may outlive it, and tearing them down with the interpreter aborts now and then.
    os._exit(0)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")
def test_a_sharded_model_holds_the_same_weights(tmp_path):
    folders = []
    for family in ("bloom", "qwen3"):
        sizes = {"family": family, "layers": 2, "hidden_size": 32, "heads": 4}
        model = Decoder(ArchitectureConfig.model_validate(sizes).model_config_for(97))
        model.init_weights(1)
        folders.append(tmp_path / family)
        save_model(model, folders[-1])
    mp.spawn(_load_sharded, args=(tmp_path / "rendezvous", folders), nprocs=WORLD)
