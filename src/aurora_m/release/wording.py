"""Figures and foreign text in words: how the cards and the report write numbers, and how they show what is not ours."""

import re
import unicodedata
from pathlib import Path
from typing import Any

_SECRET_KEY = re.compile(r"(^|hf_|api_|access_|auth_)token$|secret|passw|credential|(api|access)_?key$", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(\w+://)[^/@\s]+@")
_URL_QUERY = re.compile(r"(\w+://[^?\s]+\?)\S+")
_HIDDEN = "(hidden)"


def percent(share: float | None, signed: bool = False) -> str:
    """A share as a percentage, `31.2%`; signed, `−31.2%` or `+2.0%`."""
    if share is None:
        return "–"
    text = f"{abs(share) * 100:.1f}%"
    if not signed:
        return text
    return text if text == "0.0%" else ("−" if share < 0 else "+") + text


def size(count: float) -> str:
    """Bytes for people: 812 B, 31.6 MB, 1.2 GB (decimal)."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= 0.9995 * scale:  # what would round to 1000 of a unit is 1 of the next
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float | None) -> str:
    """Seconds for people: 0.4 s, 42 s, 4 min 12 s, 3 h 05 min, 12 d 4 h."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def plain(text: Any, limit: int = 300) -> str:
    """Foreign text made fit to show: cut to `limit` characters, without control, direction or unpaired characters.

    It is not escaped: that belongs to whoever writes the HTML or Markdown.
    """
    text = str(text)
    cut = text[:limit]
    kept = (c if c in "\n\t" else " " if unicodedata.category(c) == "Cc" else c for c in cut if _shows(c))
    return "".join(kept) + ("…" if len(text) > limit else "")


def _shows(character: str) -> bool:
    # Cf holds the direction overrides that can turn a table around; the joiners in it are needed to spell Hindi.
    return unicodedata.category(character) not in ("Cf", "Cs", "Co") or character in "\u200c\u200d"


def without_secrets(value: Any) -> Any:
    """A recipe fit to publish: no keys, no logins or signatures in addresses, no name of the user's home folder."""
    if isinstance(value, dict):
        return {
            key: _HIDDEN if isinstance(entry, str) and _SECRET_KEY.search(str(key)) else without_secrets(entry)
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(entry) for entry in value]
    if isinstance(value, str):
        value = _URL_QUERY.sub(rf"\1{_HIDDEN}", _URL_LOGIN.sub(r"\1", value))
        home = str(Path.home())
        return "~" + value[len(home) :] if value == home or value.startswith(home.rstrip("/") + "/") else value
    return value
