"""Requests to the Hub: retries, time limits, and the differences between versions of huggingface_hub.

huggingface_hub 0.x sends its requests with requests, 1.x with httpx, 2.x with httpx2; none of them ends a request
that the server never answers, and 0.x repeats few that failed.
"""

import email.utils
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from clm_core.errors import HubError, OptionError
from clm_core.redaction import without_secrets

T = TypeVar("T")

PASSING = {408, 409, 412, 423, 425, 429}
"""Failures worth retrying, besides most of the 5xx: 409 and 412 mean that another commit came in between."""

LASTING = {501, 505, 507, 511}
"""Those of the 5xx that are not worth retrying; 507 is a lack of space."""

LONGEST_WAIT = 600.0
"""Seconds from the first failure to the last attempt; a server that asks for more is not waited for."""


def redact_logs() -> None:
    """Keep signed addresses out of what huggingface_hub logs, from threads that outlive a command too."""
    for handler in logging.getLogger("huggingface_hub").handlers:
        if not any(isinstance(known, _Redaction) for known in handler.filters):
            handler.addFilter(_Redaction())


class _Redaction(logging.Filter):
    """Takes secrets out of a line before it is written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every line through, without its secrets."""
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for the Hub; from the environment, since it depends on the network and not on the run."""

    retries: int
    """Attempts after the first."""
    wait: float
    """Seconds before the second attempt; each later wait is twice as long."""
    timeout: float
    """Seconds of silence after which a request is given up."""

    @classmethod
    def from_environment(cls) -> "Patience":
        """CLM_HUB_RETRIES, CLM_HUB_WAIT and CLM_HUB_TIMEOUT.

        Raises:
            OptionError: one of them is not a number, or below 0.
        """
        return cls(
            retries=int(_number("CLM_HUB_RETRIES", 5)),
            wait=_number("CLM_HUB_WAIT", 1.0),
            timeout=_number("CLM_HUB_TIMEOUT", 60.0),
        )


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a request failed, without secrets, and whether to retry it."""

    reason: str
    status: int | None
    passes: bool
    retry_after: float | None
    """Seconds that the server asks to wait."""


def persist(
    attempt: Callable[[], T],
    *,
    patience: Patience,
    say: Callable[[str], None] = lambda line: None,
    stopped: threading.Event | None = None,
    limit: float | None = None,
) -> T:
    """Call `attempt` until it succeeds, with longer and longer waits, unless retrying is pointless.

    An attempt that takes more than `limit` seconds is abandoned.

    Raises:
        HubError: it failed for good or as often as `patience` allows, did not finish, or was `stopped`.
    """
    stopped = stopped or threading.Event()
    failed_since: float | None = None
    for number in range(patience.retries + 1):
        try:
            with bounded(patience.timeout):
                return attempt() if limit is None else _within(limit, attempt)
        except HubError:
            raise
        except Exception as error:  # Of whichever client is installed, and of its threads.
            failure = explain(error)
        failed_since = failed_since or time.monotonic()
        wait = max(patience.wait * 2**number, failure.retry_after or 0.0)
        last = number == patience.retries or time.monotonic() + wait > failed_since + LONGEST_WAIT
        if last or not failure.passes:
            raise HubError(failure.reason)
        say(f"the Hub: {failure.reason}; again in {wait:.0f} s ({number + 1} of {patience.retries})")
        if stopped.wait(wait):
            raise HubError(failure.reason)
    raise AssertionError("the last attempt returns or raises")


def explain(error: BaseException) -> Failure:
    """What an error of huggingface_hub means, of any series, and however deep in a chain of errors."""
    chain = list(_causes(error))
    response = next((found for link in chain if (found := getattr(link, "response", None)) is not None), None)
    if response is None:
        return Failure(reason=_reason(chain[-1]), status=None, passes=_is_of_network(chain), retry_after=None)
    status = int(response.status_code)
    return Failure(
        reason=f"{status} {_message(chain, response)}",
        status=status,
        passes=status in PASSING or (status >= 500 and status not in LASTING),
        retry_after=_retry_after(response.headers),
    )


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Give up requests of huggingface_hub after this many seconds of silence; it does not do so itself."""
    import huggingface_hub
    from huggingface_hub.utils import _http

    # There is no public way to ask for the factory in use. These names are tested with 0.34, 0.36, 1.x and 2.x.
    if hasattr(huggingface_hub, "set_client_factory"):
        usual, install = _http._GLOBAL_CLIENT_FACTORY, huggingface_hub.set_client_factory
    else:
        usual, install = _http._GLOBAL_BACKEND_FACTORY, huggingface_hub.configure_http_backend
    if getattr(usual, "bounded", False):  # By a caller of the caller.
        yield
        return
    install(_BoundedFactory(usual, seconds))
    try:
        yield
    finally:
        install(usual)


class _BoundedFactory:
    """Wraps a client factory: adds a timeout to requests that have none."""

    bounded = True

    def __init__(self, usual: Callable[[], Any], seconds: float) -> None:
        self.usual, self.seconds = usual, seconds

    def __call__(self) -> Any:
        client = self.usual()
        if hasattr(client, "timeout"):  # httpx
            client.timeout = self.seconds
        else:  # requests
            client.request = functools.partial(client.request, timeout=self.seconds)
        return client


def clean(text: str) -> str:
    """A message of the client as one short line, without secrets."""
    return " ".join(without_secrets(text).split())[:300]


def _within(seconds: float, attempt: Callable[[], T]) -> T:
    """Call in a thread, so that code which cannot be interrupted, such as Xet's, delays neither the end nor Ctrl-C."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            outcome.append(attempt())
        except BaseException as error:  # Raised again by the thread that waits.
            errors.append(error)

    thread = threading.Thread(target=call, name="clm-upload", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not outcome:
        raise HubError(f"it did not finish within {seconds:.0f} s")
    return outcome[0]


def _number(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise OptionError(f"{name} must be a number, 0 or above, not {text!r} (environment)")
    return value


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_of_network(chain: list[BaseException]) -> bool:
    """Whether there was no answer, or an unreadable one; not if a local file or the request is at fault."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    of_client = HfHubHTTPError.__mro__[1]  # The base of all errors of requests, httpx or httpx2.
    here = (LocalTokenNotFoundError, OfflineModeIsEnabled, FileNotFoundError, PermissionError, IsADirectoryError)
    if any(isinstance(link, here) for link in chain):
        return False
    # hf_xet raises RuntimeError for everything; an answer that is not JSON comes from something in between.
    return any(isinstance(link, (of_client, OSError, RuntimeError)) or "JSON" in type(link).__name__ for link in chain)


def _message(chain: list[BaseException], response: Any) -> str:
    said = next((text for link in chain if (text := getattr(link, "server_message", None))), None)
    return clean(str(said or getattr(response, "reason", None) or getattr(response, "reason_phrase", "")))


def _reason(error: BaseException) -> str:
    if "Timeout" in type(error).__name__:  # The clients' own messages are too long.
        return f"no answer in time ({type(error).__name__})"
    if (found := _of_system(error)) is not None:
        return f"no connection, or a broken one ({found.strerror})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return clean(f"{type(error).__name__}: {' '.join(lines[:2])}" if lines else type(error).__name__)


def _of_system(error: BaseException | None) -> OSError | None:
    """The operating system's own error, under all that were raised while it was handled."""
    found = None
    while error is not None:
        if isinstance(error, (ConnectionError, socket.gaierror)) and error.strerror:
            found = error
        error = error.__cause__ or error.__context__
    return found


def _retry_after(headers: Any) -> float | None:
    """The seconds in a Retry-After header, which may also be a date."""
    value = (headers.get("Retry-After") or "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
