"""Bytes to lines of text: UTF-8, UTF-16 or UTF-32 by its byte order mark, or the given encoding."""

import codecs
import io
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from clm_core.data.readers.opening import File, opened
from clm_core.errors import DataError

CHUNK = 2**18
"""Bytes that are decoded at a time."""

MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",  # Before UTF-16's, which it begins with.
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}

BINARY = 0.2
"""The share of zero bytes at the start of a file above which it is text only in UTF-16 or UTF-32, if at all."""

PACKED = {
    b"\x1f\x8b": ".gz",
    b"BZh91AY&SY": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
}
"""How compressed files begin, which some encodings would read as text."""

CONTROLS = {*range(32)} - {*b"\t\n\v\f\r\x1b"}
"""Bytes that do not occur in text with one byte per character."""


def read_lines(file: File, encoding: str | None = None, *, universal: bool = False) -> Iterator[str]:
    r"""The lines of a file with their line breaks: \n, and \r where there is no \n at all; or, `universal`, either.

    Raises:
        DataError: the file cannot be read, is empty, or is not in the encoding; with the place.
    """
    rest: list[str] = []
    newline: str | None = "" if universal else None
    for text in read_text(file, encoding):
        if newline is None:
            newline = "" if "\r" in text and "\n" not in text else "\n"
        if newline == "\n" and "\n" not in text:
            rest.append(text)  # A long line is joined once, at its end.
            continue
        lines = list(io.StringIO(text, newline=newline))
        lines[0] = "".join((*rest, lines[0]))
        rest = [] if lines[-1].endswith(("\n", "\r") if newline == "" else "\n") else [lines.pop()]
        yield from lines
    if rest:
        yield "".join(rest)


def read_text(file: File, encoding: str | None = None) -> Iterator[str]:
    r"""The text of a file in pieces, none of which ends between \r and \n.

    Raises:
        DataError: the file cannot be read, is empty, or is not in the encoding; with the place.
    """
    held = ""
    for text in _decoded(file, encoding):
        text = held + text
        held = "\r" if text.endswith("\r") else ""
        if len(text) > len(held):
            yield text[: len(text) - len(held)]
    if held:
        yield held


def _decoded(file: File, encoding: str | None) -> Iterator[str]:
    with opened(file) as stream:
        chunks = iter(partial(_filled, stream), b"")
        head = next(chunks, b"")
        if not head:
            raise DataError(f"{file} is empty")
        mark = next((mark for mark in MARKS if head.startswith(mark)), b"")
        name = MARKS.get(mark) or encoding or "utf-8"
        _check_head(file, head, name, marked=bool(mark))
        decoder = codecs.getincrementaldecoder(name)()
        position, lines, chunk = len(mark), 1, head[len(mark) :]
        while True:
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode(name, "ignore")
                yield good
                offset = position + len(chunk) - len(error.object) + error.start
                byte = f"byte 0x{error.object[error.start]:02x} at {offset:,}"
                raise DataError(
                    f"{file}, line {lines + good.count(chr(10))}: not {name.upper()}: {byte}{_way_out(name, chunk)}"
                ) from None
            position, lines = position + len(chunk), lines + text.count("\n")
            yield text
            if not chunk:
                return
            chunk = next(chunks, b"")


def _filled(stream: BinaryIO) -> bytes:
    """The next `size` bytes unless the file ends: decompressors return fewer at a time."""
    parts: list[bytes] = []
    missing = CHUNK
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _check_head(file: File, head: bytes, name: str, *, marked: bool) -> None:
    """Make sure that a file is what its encoding says, as far as its beginning tells."""
    if packed := next((ending for start, ending in PACKED.items() if head.startswith(start)), None):
        way_out = "unpack it first" if packed == ".zip" else f"its name must end in {packed}"
        raise DataError(f"{file} is not text: it is compressed like {packed} files: {way_out}")
    kind = codecs.lookup(name).name
    if not marked and kind in ("utf-16", "utf-32"):
        raise DataError(f"{file} has no byte order mark: give --encoding {kind}-le, or {kind}-be")
    zeros = head.count(0)
    if marked or kind.startswith(("utf-16", "utf-32")) or len(head) < 16 or zeros <= BINARY * len(head):
        return
    if zeros > 0.9 * len(head):
        raise DataError(f"{file} is almost all zero bytes: it is not text")
    width = "32" if zeros > 0.6 * len(head) else "16"
    order = "be" if head[0] == 0 else "le"
    raise DataError(
        f"{file} is not {name.upper()}: {zeros / len(head):.0%} of its first bytes are zero; "
        f"it may be --encoding utf-{width}-{order}"
    )


def _way_out(name: str, chunk: bytes) -> str:
    if any(byte in CONTROLS for byte in chunk):
        return "; it has control characters, so it may not be text at all"
    if name == "utf-8":
        return "; give its encoding, such as --encoding cp1252, or save it as UTF-8"
    return "; is it in another --encoding?"
