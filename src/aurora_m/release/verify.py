"""The proof that a release is the model that was trained: transformers' logits and tokens against ours.

Everything is compared on real held-out text. The two models are never in memory together.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ReleaseError

if TYPE_CHECKING:
    import numpy as np

MAX_DIFFERENCE = 1e-4
_WINDOWS = 8
_WINDOW_TOKENS = 128
_ROUND_TRIPS = 12
_ROUND_TRIP_TOKENS = 20_000


@dataclass(frozen=True)
class Verification:
    """What was compared, and the largest difference that was found."""

    max_logit_difference: float
    windows: int
    tokens: int
    round_trips: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify_model(folder: Path, original: Path, tokens: Path, domains: list[str], eod_id: int) -> Verification:
    """Loads `folder` as its users will, and compares it with the model in `original` as we load it, in float32.

    Raises:
        ReleaseError: transformers cannot load it; a logit differs by `MAX_DIFFERENCE` or more; a held-out document
            does not survive decoding and encoding; generation would not stop.
    """
    windows = heldout_windows(tokens, domains, eod_id)
    if not windows:
        raise ReleaseError(f"{tokens} holds no held-out tokens to compare on; run the tokenize stage again")
    ours = _our_logits(original, windows)
    model, tokenizer = _load_as_users_do(folder)
    stops = model.generation_config.eos_token_id
    if eod_id not in (stops if isinstance(stops, list) else [stops]):
        raise ReleaseError(f"generation would stop at token {stops}, but documents end with token {eod_id}")
    difference = _largest_difference(model, windows, ours)
    round_trips = _check_tokenizer(tokenizer, tokens, domains, eod_id)
    return Verification(difference, len(windows), sum(len(window) for _, window in windows), round_trips)


def heldout_windows(tokens: Path, domains: list[str], eod_id: int) -> list[tuple[str, "np.ndarray"]]:
    """The beginnings of held-out documents, one domain after the other: (domain, int64 tokens, EOD first)."""
    import numpy as np

    from aurora_m.tokens import DomainTokens

    opened = [DomainTokens(tokens, d, "heldout") for d in domains if any((tokens / d).glob("heldout-*.idx"))]
    windows = []
    for index in range(max((domain.documents for domain in opened), default=0)):
        for domain in opened:
            if index < domain.documents and len(windows) < _WINDOWS:
                document = domain.document(index)[: _WINDOW_TOKENS - 1].astype(np.int64)
                windows.append((domain.domain, np.concatenate([[eod_id], document])))
    return windows


def _our_logits(folder: Path, windows: list[tuple[str, "np.ndarray"]]) -> list["np.ndarray"]:
    import torch

    from aurora_m.model import load_model

    model = load_model(folder).eval()
    with torch.no_grad():
        return [model.logits(model(torch.from_numpy(window)[None]))[0].numpy() for _, window in windows]


def _load_as_users_do(folder: Path) -> tuple[Any, Any]:
    import torch
    import transformers

    quiet = transformers.utils.logging
    level, had_bar = logging.root.manager.disable, quiet.is_progress_bar_enabled()
    logging.disable(logging.WARNING)  # of all libraries: transformers loads torchao where it is, which warns of kernels
    quiet.disable_progress_bar()
    try:
        safe = {"local_files_only": True, "trust_remote_code": False}
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, **safe
        )
        return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, **safe)
    except Exception as error:  # whatever transformers raises, the release must not go out
        reason = f"{type(error).__name__}: {str(error)[:300]}"
        raise ReleaseError(f"transformers {transformers.__version__} cannot load the release ({reason})") from error
    finally:
        logging.disable(level)
        if had_bar:
            quiet.enable_progress_bar()


def _largest_difference(model: Any, windows: list[tuple[str, "np.ndarray"]], ours: list["np.ndarray"]) -> float:
    """Raises ReleaseError, naming domain and difference, where the two models do not agree."""
    import numpy as np
    import torch

    largest = 0.0
    with torch.no_grad():
        for (domain, window), expected in zip(windows, ours, strict=True):
            logits = model(torch.from_numpy(window)[None]).logits[0].float().numpy()
            if logits.shape[1] < expected.shape[1]:
                raise ReleaseError(f"transformers scores {logits.shape[1]} tokens, our model {expected.shape[1]}")
            difference = float(np.abs(logits[:, : expected.shape[1]] - expected).max())
            if not difference < MAX_DIFFERENCE:  # also where it is NaN
                raise ReleaseError(
                    f"the release is not the model that was trained: on held-out text of domain {domain!r} its logits "
                    f"differ from ours by {difference:.3g}, expected less than {MAX_DIFFERENCE:g}; "
                    "please report this with the recipe"
                )
            largest = max(largest, difference)
    return largest


def _check_tokenizer(tokenizer: Any, tokens: Path, domains: list[str], eod_id: int) -> int:
    """Decodes held-out documents and encodes them again; returns how many, raises ReleaseError where ids differ."""
    from aurora_m.tokens import DomainTokens

    special = list(tokenizer.get_added_vocab())
    checked = 0
    for domain in domains:
        if not any((tokens / domain).glob("heldout-*.idx")):
            continue
        heldout = DomainTokens(tokens, domain, "heldout")
        for index in range(min(heldout.documents, max(1, _ROUND_TRIPS // len(domains)))):
            ids = heldout.document(index).tolist()[:-1]
            text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            # Text that spells out a special token is read as that token by transformers, and as text by us.
            if len(ids) > _ROUND_TRIP_TOKENS or any(token in text for token in special):
                continue
            again = tokenizer.encode(text, add_special_tokens=False, verbose=False)  # no advice on length
            if again != ids:
                place = next(
                    (n for n, pair in enumerate(zip(ids, again, strict=False)) if pair[0] != pair[1]), len(ids)
                )
                raise ReleaseError(
                    f"the released tokenizer is not the one the model was trained with: held-out document {index} of "
                    f"domain {domain!r} has other ids from token {place} on ({ids[place : place + 3]} became "
                    f"{again[place : place + 3]})"
                )
            checked += 1
    return checked
