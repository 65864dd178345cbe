"""SHA256SUMS: what a release folder holds, in the form `sha256sum -c` reads."""

import re
from pathlib import Path

from aurora_m.workspace import fingerprint_file, write_text

from .errors import ReleaseError

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_LISTED = 8


def write_checksums(folder: Path) -> int:
    """Writes SHA256SUMS over every file below `folder` and returns how many there are."""
    names = _file_names(folder)
    write_text(folder / CHECKSUMS, "".join(f"{fingerprint_file(folder / name)}  {name}\n" for name in names))
    return len(names)


def verify_release(folder: Path) -> int:
    """Checks every file of a release against SHA256SUMS; returns how many there are.

    Raises:
        ReleaseError: no such list, or files that are missing, changed or not on it; each is named.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{folder / CHECKSUMS} cannot be read ({error}); is {folder} a release folder?") from None
    listed = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise ReleaseError(f"{folder / CHECKSUMS} line {number} is {line[:80]!r}, expected '<sha256>  <file>'")
        listed[match[2]] = match[1]
    # Only files found below the folder are ever opened: a name such as ../../etc/passwd counts as missing.
    present = _file_names(folder)
    faults = {
        "missing": [name for name in listed if name not in present],
        "not listed": [name for name in present if name not in listed],
        "changed": [n for n in present if n in listed and fingerprint_file(folder / n) != listed[n]],
    }
    complaints = [f"{fault}: {_some(names)}" for fault, names in faults.items() if names]
    if complaints:
        raise ReleaseError(f"{folder} is not the release it was: {'; '.join(complaints)}; fetch it again")
    return len(present)


def _file_names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(name for path in files if (name := path.relative_to(folder).as_posix()) != CHECKSUMS)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
