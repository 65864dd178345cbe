"""FlexAttention's block masks, and its mathematics where no kernel of it is compiled. The kernels need a GPU."""

import pytest
import torch
import torch.nn.attention.flex_attention as library
from torch.nn.attention.flex_attention import create_block_mask

from aurora_m.model import ArchitectureConfig, Decoder
from aurora_m.model.attention import runs_of_keys
from aurora_m.model.cpu_attention import attend_runs
from aurora_m.model.flex_attention import attend_blocks, prove_flex_attention, with_blocks

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def config_of(family: str):
    return ArchitectureConfig(family=family, layers=2, hidden_size=64, heads=4, max_positions=512).model_config_for(64)


@pytest.fixture
def backward_on_cpu(monkeypatch):
    """The library refuses gradients on CPUs; its uncompiled mathematics has them all the same."""
    monkeypatch.setattr(library, "_validate_device", lambda *parts: None)


@pytest.mark.parametrize("family", ["llama", "bloom"])
@pytest.mark.parametrize("share", [None, 0.01, 0.2])
@pytest.mark.parametrize("window", [None, 50, 200])
@pytest.mark.parametrize("length", [100, 128, 300])
def test_blocks_are_those_of_the_library(length, window, share, family):
    generator = torch.Generator().manual_seed(length)
    documents = None if share is None else (torch.rand(2, length, generator=generator) < share).int().cumsum(dim=1)
    runs = with_blocks(runs_of_keys(config_of(family), window, length, documents, CPU))
    rows, firsts = runs.firsts.size(0), runs.firsts

    def sees(batch, head, query, key):
        return (query >= key) & (key >= firsts[batch if rows > 1 else 0, query])

    wanted = create_block_mask(sees, rows, None, length, length, device="cpu")
    assert torch.equal(runs.blocks.to_dense(), wanted.to_dense())
    whole, wanted_whole = runs.blocks.full_kv_num_blocks, wanted.full_kv_num_blocks
    assert torch.equal(whole[:, 0], wanted_whole[:, 0])
    parts = [torch.randn(2, length, heads, 16, generator=generator) for heads in (4, 2, 2)]
    ours = attend_blocks(*parts, runs)
    assert (ours - attend_runs(*parts, firsts, runs.slopes)).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_a_model_with_it_is_the_same_model(family, backward_on_cpu):
    config = config_of(family)
    model = Decoder(config)
    model.init_weights(0)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 64, (2, 150), generator=generator)
    documents = (torch.rand(2, 150, generator=generator) < 0.03).int().cumsum(dim=1)
    results = []
    for flex in (False, True):
        model.attention_kernel = "flex" if flex else "auto"
        model.zero_grad()
        hidden = model(ids, document_ids=documents)
        hidden.square().mean().backward()
        results.append([hidden.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for plain, flexed in zip(*results, strict=True):
        assert (plain - flexed).abs().max() < 1e-5


def test_the_proof_sees_agreement_failure_and_difference(monkeypatch):
    config = config_of("bloom")
    assert "does not support backward on CPU" in (prove_flex_attention(config, 300, CPU, torch.float32) or "")
    monkeypatch.setattr(library, "_validate_device", lambda *parts: None)
    assert prove_flex_attention(config, 300, CPU, torch.float32) is None
    assert prove_flex_attention(config, 300, CPU, torch.bfloat16) is None
    monkeypatch.setattr("aurora_m.model.flex_attention.attend_blocks", lambda q, k, v, runs: q * 0.5 + k * v)
    assert "apart from dense attention's" in (prove_flex_attention(config, 300, CPU, torch.float32) or "")
