"""The documents a run trains and measures on, kept apart from the tokenize stage's folder, which edits write anew."""

import shutil
from pathlib import Path
from typing import Any

from aurora_m.tokens import keep_heldout, renumber
from aurora_m.workspace import Progress, write_json

from .chain import fingerprint_large


def fingerprint_documents(tokens: Path, facts: dict[str, Any]) -> dict[str, str]:
    """By domain, the identity of its training documents; `facts` is the content of tokens.json."""
    return {
        domain: fingerprint_large(tokens / domain, ("train-*.idx", "train-*.bin", "train-*.weights.npy"))
        for domain in trained_on(facts)
    }


def trained_on(facts: dict[str, Any]) -> list[str]:
    """The domains that have training documents."""
    return [domain for domain, splits in facts["domains"].items() if splits["train"]["tokens"]]


def forget_documents(out: Path) -> None:
    """What a run kept that begins anew."""
    for name in ("documents", "heldout"):
        shutil.rmtree(out / name, ignore_errors=True)


def keep_documents(tokens: Path, out: Path, facts: dict[str, Any], shards: dict[str, str], progress: Progress) -> None:
    """Numbers all training documents for the run, and keeps its held-out ones; says what came and went.

    Raises:
        DataError: files are missing or damaged.
    """
    for domain in facts["domains"]:
        keep_heldout(tokens, domain, out)
    held = {domain: splits for domain, splits in facts["domains"].items() if (out / "heldout" / domain).exists()}
    write_json(out / "heldout" / "tokens.json", {"tokenizer": facts["tokenizer"], "domains": held})
    for domain, fingerprint in shards.items():
        change = renumber(tokens, domain, out, fingerprint)
        if change is not None:
            left_out = f", {change.held_out:,} left out because they were held out before" if change.held_out else ""
            progress.say(f"domain {domain}: {change.joined:,} documents joined, {change.gone:,} are gone{left_out}")
