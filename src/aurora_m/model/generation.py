"""Text out of a model: batched greedy decoding and sampling with a key-value cache."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..workspace import AuroraError
from .attention import KeyValueCache
from .decoder import Decoder

# Padding is a document of its own: no real token attends to it.
_PADDING_DOCUMENT = -1


@torch.inference_mode()
def generate(
    model: Decoder,
    prompts: list[list[int]],
    max_new_tokens: int,
    eod_id: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    batch_size: int = 16,
    say: Callable[[str], None] | None = None,
) -> list[list[int]]:
    """The tokens after each prompt, up to but without `eod_id`; in the order of the prompts.

    Prompts are batched by length and padded on the left. A prompt too long to leave room for `max_new_tokens` keeps
    its last part; how many were cut goes to `say`.

    Args:
        temperature: 0 takes the likeliest token; above, tokens are drawn.
        top_p: draws only among the likeliest tokens that together have this probability.
        seed: the draws of prompt i depend on (seed, i) only, not on the batches; None draws anew each time.

    Raises:
        AuroraError: an empty prompt, or `max_new_tokens` leaves no room for one.
    """
    room = model.config.max_positions - max_new_tokens
    if room < 1:
        raise AuroraError(
            f"max_new_tokens {max_new_tokens} leaves no room for a prompt in {model.config.max_positions} positions"
        )
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise AuroraError(f"prompt {index} has no tokens; begin it with the end-of-document token {eod_id}")
    cut = sum(len(prompt) > room for prompt in prompts)
    if cut and say is not None:
        say(f"{cut} of {len(prompts)} prompts were longer than {room} tokens; only their last {room} were used")
    sampler = _Sampler(temperature, top_p, seed)
    answers: dict[int, list[int]] = {}
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = [prompts[index][-room:] for index in indices]
        answers |= zip(indices, _generate_batch(model, batch, indices, max_new_tokens, eod_id, sampler), strict=True)
    return [answers[index] for index in range(len(prompts))]


def _generate_batch(
    model: Decoder, prompts: list[list[int]], indices: list[int], max_new_tokens: int, eod_id: int, sampler: "_Sampler"
) -> list[list[int]]:
    weight = model.head_weight
    longest = max(map(len, prompts))
    cache = KeyValueCache(model.config, len(prompts), longest + max_new_tokens, weight.dtype, weight.device)
    padding = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)])
    pads = torch.tensor(padding).unsqueeze(1)
    slots = torch.arange(longest + max_new_tokens) - pads
    documents = torch.where(slots < 0, _PADDING_DOCUMENT, 0).to(weight.device)
    positions = slots.clamp(min=0).to(weight.device)
    # Without padding, plain causal attention says the same and is faster.
    padded = longest > min(map(len, prompts))
    generators = sampler.generators(indices)
    answers: list[list[int]] = [[] for _ in prompts]
    finished = [False] * len(prompts)
    ids = ids.to(weight.device)
    for _ in range(max_new_tokens):
        span = slice(cache.length, cache.length + ids.size(1))
        hidden = model(ids, positions[:, span], documents[:, span] if padded else None, cache)
        chosen = sampler.choose(model.logits(hidden[:, -1]).float().cpu(), generators)
        for row, token in enumerate(chosen.tolist()):
            finished[row] = finished[row] or token == eod_id
            if not finished[row]:
                answers[row].append(token)
        if all(finished):
            break
        ids = chosen.unsqueeze(1).to(weight.device)
    return answers


class _Sampler:
    """How the next token is chosen from logits."""

    def __init__(self, temperature: float, top_p: float, seed: int | None) -> None:
        if temperature < 0 or not 0 < top_p <= 1:
            raise AuroraError(f"temperature {temperature} must be at least 0, and top_p {top_p} within (0, 1]")
        self.temperature, self.top_p = temperature, top_p
        self.seed = torch.seed() if seed is None else seed

    def generators(self, indices: list[int]) -> list[torch.Generator]:
        """One source of randomness per prompt, by its index."""
        # An odd multiplier keeps (seed, index) pairs apart; seeds are taken modulo 2^63.
        return [torch.Generator().manual_seed((self.seed * 1_000_003 + index) % 2**63) for index in indices]

    def choose(self, logits: Tensor, generators: list[torch.Generator]) -> Tensor:
        """(B, V) float32 logits to (B,) token ids."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        likelihoods, tokens = torch.softmax(logits / self.temperature, dim=-1).sort(
            dim=-1, descending=True, stable=True
        )
        reached = likelihoods.cumsum(dim=-1)
        # A token stays while those before it have less than top_p: the likeliest always does.
        likelihoods = likelihoods.where(reached - likelihoods < self.top_p, 0.0)
        reached = likelihoods.cumsum(dim=-1)
        draws = torch.cat([torch.rand(1, generator=generator) for generator in generators]).unsqueeze(1)
        places = torch.searchsorted(reached, draws * reached[:, -1:], right=True)
        last = (likelihoods > 0).sum(dim=-1, keepdim=True) - 1
        return tokens.gather(1, places.minimum(last)).squeeze(1)
