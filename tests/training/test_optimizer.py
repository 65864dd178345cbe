"""AdamW decays matrices only, and its state can be named, saved and filled."""

import torch
from torch import nn

from aurora_m.training import OptimizerConfig, build_optimizer
from aurora_m.training.optimizer import set_rate, state_tensors


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))


def step(model, optimizer, rate=0.1):
    model(torch.ones(2, 4)).pow(2).sum().backward()
    set_rate(optimizer, rate)
    optimizer.step()
    optimizer.zero_grad()


def test_only_matrices_decay():
    model = network()
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    set_rate(optimizer, 0.1)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if name == "0.weight" else 1.0
        assert torch.allclose(parameter, before[name] * factor), name


def test_it_is_adamw_as_pytorch_writes_it_unfused():
    ours, reference = network(), network()
    optimizer = build_optimizer(ours, OptimizerConfig(weight_decay=0.0))
    plain = torch.optim.AdamW(reference.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.0, foreach=False)
    for _ in range(3):
        step(ours, optimizer)
        step(reference, plain)
    for mine, theirs in zip(ours.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_state_copied_by_name_goes_on_bit_for_bit():
    model = network()
    optimizer = build_optimizer(model, OptimizerConfig())
    for _ in range(2):
        step(model, optimizer)
    other = network()
    other_optimizer = build_optimizer(other, OptimizerConfig())
    saved = {name: tensor.clone() for name, tensor in state_tensors(model, optimizer).items()}
    with torch.no_grad():
        for name, tensor in state_tensors(other, other_optimizer).items():
            tensor.copy_(saved[name])
    step(model, optimizer)
    step(other, other_optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
