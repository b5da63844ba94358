"""Files behind a URL, through fsspec: https, s3, gs, hf and others."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from clm_core.errors import DataError, first_line
from clm_core.redaction import without_credentials

WEB = ("http", "https")
"""Where a `?` starts a query, and is not a wildcard."""

PATIENCE = 60.0
"""Seconds of silence after which a request over the web is given up; a transfer may take any time."""

BUFFER = 2**20

SAME_VERSION = ("s3fs", "gcsfs")
"""Packages of which each version needs the same version of fsspec."""


@dataclass(frozen=True, repr=False)
class RemoteFile:
    """A file behind a URL, with as much of `pathlib.Path` as reading takes; credentials in the URL are not shown."""

    url: str

    def __str__(self) -> str:
        return without_credentials(self.url)

    @property
    def name(self) -> str:
        """The last part of its path, without a query."""
        path = urlsplit(self.url).path if _scheme(self.url) in WEB else self.url.partition("::")[0]
        return PurePosixPath(unquote(path)).name

    def open(self, mode: str = "rb", *, seek: bool = False) -> io.BufferedReader:
        """Its bytes as a stream or, if the server supports it, with random access.

        Raises:
            DataError: it cannot be read; also raised by the stream.
        """
        with _explained(self.url):
            system, path = _file_system(self.url)
            # Of length 0 means: in one request, whether or not the server knows of ranges.
            how = {"block_size": 0} if _scheme(self.url) in WEB and not seek else {}
            return io.BufferedReader(_Stream(system.open(path, mode, **how), self.url), BUFFER)


def is_remote(name: str) -> bool:
    """Whether this is a URL, and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None and not name.startswith("file://")


def expand(url: str) -> list[RemoteFile]:
    """The files that a URL names, which may be a glob where the file system can list; in the order of their names.

    Raises:
        DataError: the file system is not installed, or cannot be reached.
    """
    scheme, _, rest = url.partition("://")
    url = f"{scheme.lower()}://{rest}"
    with _explained(url):
        system, path = _file_system(url)
        if not any(sign in url for sign in ("*" if _scheme(url) in WEB else "*?[")):
            return [RemoteFile(url)]
        return [RemoteFile(system.unstrip_protocol(found)) for found in sorted(system.glob(path))]


class _Stream(io.RawIOBase):
    """A stream of fsspec whose errors name the URL."""

    def __init__(self, stream: Any, url: str) -> None:
        self.stream, self.url = stream, url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self.stream.seekable())

    def readinto(self, buffer: Any) -> int:
        with _explained(self.url):
            content = self.stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = 0) -> int:
        with _explained(self.url):
            return int(self.stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self.stream.tell())

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
        super().close()


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    import fsspec

    scheme = _scheme(url)
    try:
        system, path = fsspec.core.url_to_fs(url, **(_over_the_web() if scheme in WEB else {}))
    except ImportError as error:
        raise DataError(f"{url}: {error}: {_pip_line(scheme)}") from None
    except ValueError as error:
        raise DataError(f"{url}: {error}; a local path has no ://") from None
    return system, path


def _over_the_web() -> dict[str, Any]:
    """The client's settings: else it gives up after five minutes, finished or not, and looks for no proxy."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=PATIENCE)
    # A compressed file comes as it is, and is not decompressed on the way.
    return {
        "client_kwargs": {"trust_env": True, "timeout": timeout},
        "headers": {"Accept-Encoding": "identity"},
    }


def _pip_line(scheme: str) -> str:
    import fsspec
    from fsspec.registry import known_implementations

    package = known_implementations.get(scheme, {"class": "fsspec."})["class"].split(".")[0]
    if package == "fsspec":
        package = f"fsspec[{scheme}]"
    elif package in SAME_VERSION:
        package = f"{package}=={fsspec.__version__}"
    return f'pip install "{package}"'


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Explain in one line what went wrong with a URL: every file system raises different errors."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {url}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) and status is None:
        return _reason(error.__cause__) if error.__cause__ else "there is no such file"
    reason = first_line(error) if status is None else getattr(error, "message", "") or type(error).__name__
    if status in (401, 403):
        reason += "; clm does not store a user or token from the URL of an earlier run: give it again"
    return f"{status} {reason}" if status else reason


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()
