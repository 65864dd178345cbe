"""Invented values that take the place of personal data: the same for the same value, and never anybody's.

All are drawn from ranges that are set aside for examples and tests or that nobody issues, by a keyed hash of kind,
value and seed: neither the order of the documents nor the number of threads matters. Keys are not replaced by others.

Who knows the seed can confirm a guess by trying it; where this matters, take placeholders.
"""

import re
from collections.abc import Callable, Iterator
from hashlib import blake2b

from .check_digits import CHECKS, iban, luhn
from .language_settings import LanguageSettings

_LAST_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_IPV4_BLOCKS = ("192.0.2", "198.51.100", "203.0.113")  # RFC 5737

_FORMS = {
    "email": r"person-[0-9a-f]{12}@example\.invalid",  # RFC 2606: .invalid
    "ip": r"(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}|2001:db8(?::[0-9a-f]{4}){6}",  # RFC 5737, RFC 3849
    "phone": r"\+1-\d{3}-555-01\d\d",  # North American Numbering Plan: 555-0100 to 555-0199 are for fiction
    "iban": r"XX\d{20}",  # ISO 3166: XX is no country and will be none
    "card": r"0000\d{12}",  # ISO/IEC 7812: no issuer's prefix
    "author": r"author-[0-9a-f]{8}",
}


class Pseudonyms:
    """Pseudonyms of one seed, with the forms of national ids that a language's file gives."""

    def __init__(self, settings: LanguageSettings | None, seed: int) -> None:
        self._key = str(seed).encode()[:64]
        self._ids = settings.national_ids if settings else []
        # What #, * and ! stand for; everything else stands for itself.
        ids = [re.sub(r"\\#|!", r"\\d", re.escape(form.pseudonym)).replace(r"\*", "[0-9A-Z]") for form in self._ids]
        own = "|".join(f"(?:{form})" for form in (*_FORMS.values(), *ids))
        self._own = re.compile(own, re.ASCII)
        self._own_inside = re.compile(rf"(?<![A-Za-z0-9])(?:{own})(?![A-Za-z0-9])", re.ASCII)

    def __call__(self, kind: str, value: str) -> str:
        """The pseudonym of a value; case and the marks between its letters and digits make no difference."""
        plain = value.casefold() if kind in ("email", "author", "ip") else re.sub(r"\W", "", value).casefold()
        digest = blake2b(f"{kind}\0{plain}".encode(), digest_size=32, key=self._key).digest()
        number = int.from_bytes(digest[:16], "big")
        if kind == "email":
            return f"person-{digest.hex()[:12]}@example.invalid"
        if kind == "author":
            return f"author-{digest.hex()[:8]}"
        if kind == "ip" and ":" in value:
            groups = digest.hex()[:24]
            return "2001:db8:" + ":".join(groups[at : at + 4] for at in range(0, 24, 4))
        if kind == "ip":
            return f"{_IPV4_BLOCKS[number % 3]}.{1 + number // 3 % 254}"
        if kind == "phone":
            return f"+1-{200 + number % 800}-555-01{number // 800 % 100:02}"
        if kind == "iban":
            return _complete("XX**" + "#" * 18, number, iban)
        if kind == "card":
            return _complete("0000" + "#" * 11 + "*", number, luhn)
        form = next(form for form in self._ids if re.fullmatch(form.pattern, value))
        return _complete(form.pseudonym, number, CHECKS[form.check])

    def is_own(self, value: str) -> bool:
        """Whether a value is of the form of a pseudonym: these stay what they are."""
        return self._own.fullmatch(value) is not None

    def holds_own(self, value: str) -> bool:
        """Whether a pseudonym is part of a value."""
        return self._own_inside.search(value) is not None


def _complete(form: str, number: int, check: Callable[[str], bool]) -> str:
    """The form with digits of the number for `#`, and the first characters for `*` and `!` that the check asks for."""
    while "#" in form:
        form = form.replace("#", str(number % 10), 1)
        number //= 10
    return next((value for value in _endings(form) if check(value) == ("!" not in form)), form)


def _endings(form: str) -> Iterator[str]:
    place = re.search(r"[*!]", form)
    if place is None:
        yield form
        return
    for character in _LAST_CHARACTERS:
        yield from _endings(form[: place.start()] + character + form[place.end() :])
