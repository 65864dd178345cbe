"""Where a token stands, as attention sees it: rotary tables with their scalings, ALiBi slopes."""

import math

import torch
from torch import Tensor

from .config import Llama3Scaling, ModelConfig, YarnScaling


def rotary_frequencies(config: ModelConfig, device: torch.device | str = "cpu") -> Tensor:
    """Radians per position of each rotated pair (head_size / 2,), float32; after RoFormer (Su et al. 2021)."""
    half = config.head_size // 2
    exponents = torch.arange(half, dtype=torch.float32, device=device) / half
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    if isinstance(scaling, Llama3Scaling):
        kept = _kept_by_llama3(scaling, frequencies)
    elif isinstance(scaling, YarnScaling):
        kept = _kept_by_yarn(scaling, config, frequencies)
    else:
        return frequencies / scaling.factor
    return frequencies * kept + frequencies / scaling.factor * (1 - kept)


def _kept_by_llama3(scaling: Llama3Scaling, frequencies: Tensor) -> Tensor:
    """How much of each frequency stays (0 to 1): short wavelengths wholly, long ones not, those between in part."""
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return kept.clamp(0, 1)


def _kept_by_yarn(scaling: YarnScaling, config: ModelConfig, frequencies: Tensor) -> Tensor:
    """How much of each frequency stays (0 to 1): a ramp over the pairs' numbers between the two limits of turns."""

    def pair_with(turns: float) -> float:
        wavelengths = scaling.original_max_positions / (turns * 2 * math.pi)
        return config.head_size * math.log(wavelengths) / (2 * math.log(config.rope_theta))

    first, last = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, config.head_size - 1)
    pairs = torch.arange(len(frequencies), dtype=torch.float32, device=frequencies.device)
    return 1 - ((pairs - first) / (last - first or 0.001)).clamp(0, 1)


def rotary_table(config: ModelConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `positions` (L) or (B, L): each (L or B, L; 1, head_size / 2), float32."""
    angles = (positions.unsqueeze(-1).float() * rotary_frequencies(config, positions.device)).unsqueeze(-2)
    if isinstance(config.rope_scaling, YarnScaling):
        return angles.cos() * config.rope_scaling.attention_factor, angles.sin() * config.rope_scaling.attention_factor
    return angles.cos(), angles.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates (B, L, heads, head_size) by position. Pair i is (i, i + head_size / 2), the order Hugging Face stores."""
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def alibi_slopes(heads: int) -> list[float]:
    """By how much each head lowers a score for every token of distance (Press et al. 2022).

    For a power of two the slopes are the geometric series that starts at its own ratio 2^(-8 / heads); for another
    number of heads, those of the power of two below it, then every other one of the power of two above it.
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    return slopes + [2.0 ** (-4 * (2 * head + 1) / power) for head in range(heads - power)]
