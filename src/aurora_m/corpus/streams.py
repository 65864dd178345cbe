"""Files as bounded blocks: decompression that cannot run away, lines that cannot fill the memory."""

import io
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from ..workspace import DataError, format_count

BLOCK_BYTES = 4_000_000

_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
# No text expands a thousandfold; what does is a bomb. Below the first limit it does no harm.
_BOMB_BYTES, _BOMB_RATIO = 256_000_000, 1000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class SourceFile:
    """A file to read, on this machine (`filesystem` None) or at an fsspec address."""

    path: str
    size: int
    filesystem: Any = None

    def open(self) -> IO[bytes]:
        """The file's bytes.

        Raises:
            DataError: it cannot be opened.
        """
        try:
            if self.filesystem is None:
                return Path(self.path).open("rb")
            return cast(IO[bytes], _RemoteFile(lambda: self.filesystem.open(self.path, "rb")))
        except OSError as error:
            raise DataError(f"{self.path} cannot be opened: {error.strerror or error}") from None

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def compression(self) -> str | None:
        """Name of its compression, by suffix."""
        path = self.path.partition("?")[0] if self.path.startswith(("http://", "https://")) else self.path
        return _COMPRESSION.get(Path(path).suffix)


class _RemoteFile(io.RawIOBase):
    """A file at an fsspec address whose every failure is an OSError.

    Filesystems raise what their clients raise: a connection that breaks off is a different class in each.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._file: Any = None
        self._file = _as_os_error(make)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        content = _as_os_error(self._file.read, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        return _as_os_error(self._file.seek, offset, whence)

    def tell(self) -> int:
        return _as_os_error(self._file.tell)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()


def _as_os_error(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class LineBlock:
    """Complete lines of a file. `skipped` are the bytes of each line that was too long to be read."""

    file: SourceFile
    data: bytes
    first_line: int
    skipped: list[int] = field(default_factory=list)
    compressed_bytes: int = 0


def line_blocks(file: SourceFile, max_line_bytes: int) -> Generator[LineBlock, None, None]:
    """The lines of a file (plain, .gz or .zst) in blocks of a few megabytes, whole lines each.

    A line longer than `max_line_bytes` is passed over without being held in memory, and its size reported.

    Raises:
        DataError: the file is cut off, damaged, or a decompression bomb.
    """
    held: list[bytes] = []  # the beginning of a line whose end has not come yet
    held_bytes = overlong = told = 0
    line = 1
    with file.open() as raw:
        for chunk in chunks(file, raw, min(BLOCK_BYTES, max_line_bytes)):
            first_end, last_end = chunk.find(b"\n") + 1, chunk.rfind(b"\n") + 1
            start, skipped = 0, []
            if overlong or held_bytes + (first_end or len(chunk)) > max_line_bytes:
                # Inside a line that is too long: let go of what is held, and look for its end.
                overlong += held_bytes + (first_end or len(chunk))
                held, held_bytes, start = [], 0, first_end
                if not first_end:
                    continue
                skipped, overlong = [overlong], 0
            elif not last_end:
                held.append(chunk)
                held_bytes += len(chunk)
                continue
            data = b"".join([*held, chunk[start:last_end]])
            held, held_bytes = [chunk[last_end:]], len(chunk) - last_end
            position = _position(raw)
            first_line, line = line + len(skipped), line + len(skipped) + len(line_breaks(data))
            yield LineBlock(file, data, first_line, skipped, position - told)
            told = position
        rest = b"".join(held)
        if rest or overlong:
            yield LineBlock(file, rest, line, [overlong] if overlong else [], max(_position(raw) - told, 0))


def read_whole(file: SourceFile, most_bytes: int) -> bytes:
    """A small file's content.

    Raises:
        DataError: it is damaged, or larger than `most_bytes` once decompressed.
    """
    content = bytearray()
    with file.open() as raw:
        for chunk in chunks(file, raw, BLOCK_BYTES):
            content += chunk
            if len(content) > most_bytes:
                raise DataError(
                    f"{file.path} is one JSON array of more than {format_count(most_bytes)} bytes; "
                    "write one object per line (.jsonl) instead, or raise curate.max_line_bytes"
                )
    return bytes(content)


def chunks(file: SourceFile, raw: IO[bytes], size: int) -> Iterator[bytes]:
    """Decompressed chunks, at most `size` bytes each; a leading byte-order mark is left out."""
    total = lines = 0
    try:
        stream = raw
        if file.compression:
            stream = cast(IO[bytes], pa.CompressedInputStream(pa.PythonFile(raw), file.compression))
        while chunk := stream.read(size):
            if not total and chunk.startswith(_BYTE_ORDER_MARK):
                chunk = chunk[len(_BYTE_ORDER_MARK) :] or b"\n"
            total, lines = total + len(chunk), lines + len(line_breaks(chunk))
            if file.compression:
                check_expansion(file, total, _position(raw))
            yield chunk
    except OSError as error:
        raise DataError(
            f"{file.path} is cut off or damaged: {error}; {lines} lines ({format_count(total)} bytes of text) "
            "were read before that. Fetch or write the file again"
        ) from None


def line_breaks(data: bytes) -> np.ndarray:
    """Where they are, int64. Found without the GIL, which all that `bytes` has of the kind holds."""
    return np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))


def check_expansion(file: SourceFile, unpacked: int, packed: int) -> None:
    """Whether so many bytes may come of so many compressed ones.

    Raises:
        DataError: it is a decompression bomb.
    """
    if unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * max(packed, 1):
        raise DataError(
            f"{file.path} expands more than {_BOMB_RATIO}-fold (to over {format_count(unpacked)} bytes); "
            "no text does, so it is taken for a decompression bomb and not read further"
        )


def _position(raw: IO[bytes]) -> int:
    try:
        return raw.tell()
    except (OSError, ValueError):
        return 0
