"""Who gets the next sequence: a mixture's shares, held exactly, and the check that they make sense."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

_SUM_TOLERANCE = 1e-6


def check_shares(phase: str, shares: dict[str, float], known_domains: Iterable[str]) -> None:
    """Refuses a mixture that cannot be meant.

    Raises:
        ValueError: an unknown domain, a share that is negative or not finite, shares that do not sum to 1.
    """
    known = list(known_domains)
    for domain, share in shares.items():
        if domain not in known:
            near = difflib.get_close_matches(domain, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"the domains are {', '.join(known)}"
            raise ValueError(f"phase {phase}: the mixture names an unknown domain '{domain}'; {hint}")
        if not (math.isfinite(share) and share >= 0):
            raise ValueError(f"phase {phase}: share of '{domain}' is {share}, expected 0 to 1")
    total = math.fsum(shares.values())
    if abs(total - 1) > _SUM_TOLERANCE:
        missing = [domain for domain in known if domain not in shares] if total < 1 else []
        hint = f"; did you leave out {' or '.join(map(repr, missing))}?" if missing else "; change one of them"
        raise ValueError(f"phase {phase}: shares sum to {total:.6g}, expected 1.0{hint}")


class Mixture:
    """Deals sequences to domains so that after any number n each domain has had share * n of them, give or take one.

    A domain may take its k-th sequence once share * n exceeds k - 1, and should before share * n reaches k; of those
    that may, the one whose limit comes first does (ties: the order of `shares`). This is earliest-deadline-first with
    the windows of proportionate-fair scheduling (Tijdeman 1980, "The chairman assignment problem"; Baruah et al. 1996),
    which proves the bound. Giving to the largest deficit looks as good and is not: it strays 1.16 with 12 domains.
    """

    def __init__(self, shares: dict[str, float]) -> None:
        self.shares = {domain: share for domain, share in shares.items() if share > 0}
        self.given = dict.fromkeys(self.shares, 0)

    def next_domain(self) -> str:
        """The domain of the next sequence."""
        dealt = sum(self.given.values()) + 1
        ready = [domain for domain, share in self.shares.items() if self.given[domain] < share * dealt]
        domain = min(ready, key=lambda domain: (self.given[domain] + 1) / self.shares[domain])
        self.given[domain] += 1
        return domain

    def state_dict(self) -> dict[str, Any]:
        return {"shares": dict(self.shares), "given": dict(self.given)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shares, self.given = dict(state["shares"]), dict(state["given"])
