"""What a source's licence asks of those who use the model: a reading of its identifier, not legal advice."""

import re

_OBLIGATIONS = {
    "non-commercial": r"\bnc\b|non-?commercial",
    "share-alike": r"\bsa\b|share-?alike|\bgpl|\blgpl|\bagpl|\bodbl\b|\bgfdl\b",
    "no derivatives": r"\bnd\b|no-?deriv",
}
_UNKNOWN = {"", "not stated", "unknown", "none", "null", "other", "unlicensed"}


def obligations(license: str | None) -> list[str]:
    """`CC-BY-NC-SA-4.0` → non-commercial, share-alike; an empty or unknown licence → not stated."""
    name = (license or "").strip().lower()
    if name in _UNKNOWN:
        return ["not stated"]
    words = re.sub(r"[_/.]", " ", name)
    return [obligation for obligation, pattern in _OBLIGATIONS.items() if re.search(pattern, words)]


def licenses_of(sources: dict[str, dict]) -> dict[str, int]:
    """Documents kept under each licence over the sources of a domain (`curation.json`), most documents first."""
    documents: dict[str, int] = {}
    for source in sources.values():
        for license, count in source.get("licenses", {}).items():
            documents[license or "not stated"] = documents.get(license or "not stated", 0) + count
    return dict(sorted(documents.items(), key=lambda entry: (-entry[1], entry[0])))
