"""The CPU's attention kernels against dense attention under the same mask."""

import math
import os
import platform
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurora_m.model import ArchitectureConfig
from aurora_m.model.attention import attention_mask, mask_of_heads, runs_of_keys
from aurora_m.model.cpu_attention import attend_runs, run_attention


def config_of(heads: int, alibi: bool):
    values = {"layers": 1, "hidden_size": 8 * heads, "heads": heads, "max_positions": 256}
    return ArchitectureConfig(family="bloom" if alibi else "llama", **values).model_config_for(64)


def documents_of(generator: torch.Generator, rows: int, length: int, share: float) -> torch.Tensor:
    """Document numbers (rows, length): each token begins a new document with probability `share`."""
    return (torch.rand(rows, length, generator=generator) < share).int().cumsum(dim=1)


def with_gradients(attend, parts, weights):
    """What `attend` makes of q, k, v, and the gradients of its sum under random weights."""
    parts = [part.detach().clone().requires_grad_() for part in parts]
    out = attend(*parts)
    (out * weights).sum().backward()
    return [out.detach(), *(part.grad for part in parts)]


def dense(mask):
    """Attention over all pairs, in float64."""

    def attend(queries, keys, values):
        groups = queries.size(2) // keys.size(2)
        q, k, v = (x.double().transpose(1, 2) for x in (queries, keys, values))
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.size(3)) + mask
        return (scores.softmax(dim=3) @ v).transpose(1, 2)

    return attend


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 150),
    key_heads=st.sampled_from([1, 2]),
    groups=st.sampled_from([1, 3]),
    depth=st.sampled_from([8, 32, 48, 64, 80]),
    share=st.sampled_from([None, 0.0, 0.02, 0.3, 1.0]),
    window=st.sampled_from([None, 1, 7, 64]),
    alibi=st.booleans(),
    seed=st.integers(0, 10**6),
)
@example(1, 1, 1, 1, 8, 1.0, 1, True, 0)
@example(2, 129, 2, 3, 80, 0.02, 7, True, 1)
def test_runs_attend_as_dense_attention_does(batch, length, key_heads, groups, depth, share, window, alibi, seed):
    heads = key_heads * groups
    config = config_of(heads, alibi)
    generator = torch.Generator().manual_seed(seed)
    documents = None if share is None else documents_of(generator, batch, length, share)
    runs = runs_of_keys(config, window, length, documents, torch.device("cpu"))
    mask = attention_mask(config, window, length, documents, documents, torch.float64, torch.device("cpu"), 0)
    if mask is None:
        mask = torch.full((length, length), -torch.inf).triu(1)
    parts = [torch.randn(batch, length, n, depth, generator=generator) for n in (heads, key_heads, key_heads)]
    weights = torch.randn(parts[0].shape, generator=generator)
    ours = with_gradients(lambda q, k, v: attend_runs(q, k, v, runs.firsts, runs.slopes), parts, weights)
    theirs = with_gradients(dense(mask), parts, weights)
    for our_part, their_part in zip(ours, theirs, strict=True):
        assert (our_part - their_part).abs().max() <= 1e-5 * max(1.0, their_part.abs().max().item())


def test_any_memory_layout_will_do():
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(2, 64, 3, 4, 32, generator=generator)
    firsts = torch.zeros(1, 64, dtype=torch.int32)
    views = whole.unbind(dim=2)
    turned = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in views]  # its last dimension is not the dense one
    copies = [x.contiguous() for x in views]
    wanted = attend_runs(*copies, firsts, None)
    assert torch.equal(attend_runs(*views, firsts, None), wanted)
    assert torch.equal(attend_runs(*turned, firsts, None), wanted)


def test_threads_change_no_bit():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(3, 96, n, 32, generator=generator) for n in (4, 2, 2)]
    weights = torch.randn(parts[0].shape, generator=generator)
    firsts = torch.zeros(1, 96, dtype=torch.int32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(with_gradients(lambda q, k, v: attend_runs(q, k, v, firsts, None), parts, weights))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_scores_far_apart_and_not_finite():
    """Large scores neither overflow nor lose their place; NaN and infinity are not hidden, so that steps are judged."""
    queries = torch.zeros(1, 64, 1, 32)
    queries[..., 0] = 1.0
    keys, values = torch.zeros_like(queries), torch.zeros_like(queries)
    keys[0, :, 0, 0] = torch.linspace(-5e4, 5e4, 64)
    values[0, :, 0, 0] = torch.arange(64.0)
    firsts = torch.zeros(1, 64, dtype=torch.int32)
    assert torch.equal(attend_runs(queries, keys, values, firsts, None)[0, :, 0, 0], torch.arange(64.0))
    for bad in (math.nan, math.inf):
        spoilt = keys.clone()
        spoilt[0, 40, 0, 0] = bad
        out = attend_runs(queries, spoilt, values, firsts, None)
        assert torch.isfinite(out[:, :32]).all()  # blocks of queries before it never see it
        assert not torch.isfinite(out[0, 40:, 0, 0]).any()


def test_bfloat16_is_computed_in_float32():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 70, 2, 16, generator=generator).bfloat16() for _ in range(3)]
    firsts = torch.zeros(1, 70, dtype=torch.int32)
    out = attend_runs(*parts, firsts, None)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, attend_runs(*(x.float() for x in parts), firsts, None).bfloat16())


@pytest.mark.parametrize("key_heads", [1, 2])
def test_the_operator_keeps_what_it_promises(key_heads):
    """Fake tensors have the real ones' shapes, and autograd is registered as PyTorch wants it."""
    parts = [torch.randn(2, 64, n, 32, requires_grad=True) for n in (2, key_heads, key_heads)]
    arguments = (*parts, torch.zeros(1, 64, dtype=torch.int32), torch.zeros(2), 0.2)
    torch.library.opcheck(
        run_attention, arguments, test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )


def test_masks_of_some_heads():
    config = config_of(4, alibi=True)
    runs = runs_of_keys(config, None, 8, None, torch.device("cpu"))
    mask = attention_mask(config, None, 8, None, None, torch.float32, torch.device("cpu"))
    some = slice(1, 3)
    assert torch.equal(mask_of_heads(runs, some).slopes, runs.slopes[some])
    assert torch.equal(mask_of_heads(mask, some), mask[:, some])
    plain = F.pad(mask[:, :1], (0, 0))
    assert mask_of_heads(plain, some) is plain and mask_of_heads(None, some) is None


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the features are those of x86 processors")
def test_narrower_registers_give_the_same(tmp_path):
    """The tiles of a processor with 8 floats in a register, beside this machine's."""
    program = """
import sys, torch
from aurora_m.model.cpu_attention import attend_runs
from aurora_m.model.tiles import LANES
generator = torch.Generator().manual_seed(0)
parts = [torch.randn(2, 70, n, 48, generator=generator).requires_grad_() for n in (4, 2, 2)]
out = attend_runs(*parts, torch.zeros(1, 70, dtype=torch.int32), None)
out.square().sum().backward()
torch.save((LANES, [out.detach(), *(part.grad for part in parts)]), sys.argv[1])
"""
    narrow = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2,+avx", "NUMBA_CACHE_DIR": str(tmp_path)}
    results = []
    for number, changes in enumerate(({}, narrow)):
        command = [sys.executable, "-c", program, str(tmp_path / f"{number}.pt")]
        subprocess.run(command, check=True, timeout=300, env=os.environ | changes)
        results.append(torch.load(tmp_path / f"{number}.pt"))
    assert results[1][0] == 8
    for ours, other in zip(results[0][1], results[1][1], strict=True):
        assert (ours - other).abs().max() < 1e-5 * max(1.0, ours.abs().max().item())
