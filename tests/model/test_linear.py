"""Products through oneDNN are products: values and gradients of F.linear."""

import pytest
import torch
import torch.nn.functional as F

from aurora_m.model.linear import Linear, linear, uses_onednn


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 4), (1, 1, 1), (0, 3)])
@pytest.mark.parametrize("outputs", [3, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(shape, outputs, bias):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, 12, generator=generator, requires_grad=True)
    weight = torch.randn(outputs, 12, generator=generator, requires_grad=True)
    b = torch.randn(outputs, generator=generator, requires_grad=True) if bias else None
    wanted_by = [tensor for tensor in (x, weight, b) if tensor is not None]
    upstream = torch.randn(*shape, outputs, generator=generator)
    ours, theirs = linear(x, weight, b), F.linear(x, weight, b)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = (torch.autograd.grad(y, wanted_by, upstream) for y in (ours, theirs))
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_strided_inputs_and_gradients_are_understood():
    x = torch.randn(6, 4, 12).transpose(0, 1)[:, ::2].requires_grad_()
    weight = torch.randn(5, 24)[:, ::2].requires_grad_()
    for product in (linear, F.linear):
        torch.testing.assert_close(product(x, weight), F.linear(x.contiguous(), weight.contiguous()))
    got, wanted = (
        torch.autograd.grad(product(x, weight).transpose(1, 2).square().sum(), (x, weight))
        for product in (linear, F.linear)
    )
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_only_plain_float32_on_the_cpu_leaves_torch():
    layer, x = Linear(4, 3), torch.randn(2, 4)
    assert not uses_onednn(x.bfloat16(), layer.weight.bfloat16())
    assert not uses_onednn(x.to("meta"), layer.weight.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not uses_onednn(x, layer.weight)
        assert layer(x).dtype == torch.bfloat16


def test_a_build_without_onednn_works_the_same(monkeypatch):
    layer, x = Linear(4, 3), torch.randn(2, 4)
    expected = layer(x)
    monkeypatch.setattr("aurora_m.model.linear._ONEDNN_LINEAR", None)
    assert not uses_onednn(x, layer.weight)
    torch.testing.assert_close(layer(x), expected)
