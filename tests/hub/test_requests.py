"""Which failures are waited for, how long, and what is said of them."""

import io
import logging
import threading

import pytest

from clm_core.errors import HubError, OptionError
from clm_core.hub_requests import Patience, clean, explain, persist, redact_logs

PATIENCE = Patience(retries=3, wait=1.0, timeout=5.0)


class Response:
    """What the errors of every client carry."""

    def __init__(self, status, headers):
        self.status_code, self.headers, self.reason = status, headers, "because"


def failure(status, **headers):
    error = Exception("of the client")
    error.response = Response(status, {name.replace("_", "-"): value for name, value in headers.items()})
    return error


class Waits(threading.Event):
    """Waits for nothing, and remembers for how long."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return self.is_set()


def attempts(*outcomes):
    """What fails and works in this order."""
    left = iter(outcomes)

    def attempt():
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return attempt


def test_what_may_pass_is_waited_for_twice_as_long_each_time():
    waits = Waits()
    attempt = attempts(failure(503), ConnectionError(), failure(500), "done")
    assert persist(attempt, patience=PATIENCE, stopped=waits) == "done"
    assert waits.seconds == [1.0, 2.0, 4.0]


def test_a_server_that_says_how_long_to_wait_is_heard():
    waits = Waits()
    persist(attempts(failure(429, Retry_After="30"), "done"), patience=PATIENCE, stopped=waits)
    assert waits.seconds == [30.0]


def test_a_date_to_come_back_at_is_heard():
    found = explain(failure(503, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT")).retry_after
    assert found > 1e9


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 501, 507])
def test_what_does_not_pass_is_not_tried_again(status):
    waits = Waits()
    with pytest.raises(HubError, match=f"^{status} because$"):
        persist(attempts(failure(status)), patience=PATIENCE, stopped=waits)
    assert waits.seconds == []


def test_in_the_end_it_is_given_up():
    waits = Waits()
    with pytest.raises(HubError, match="503"):
        persist(attempts(*[failure(503)] * 4), patience=PATIENCE, stopped=waits)
    assert len(waits.seconds) == 3


def test_nobody_waits_for_longer_than_ten_minutes():
    waits = Waits()
    with pytest.raises(HubError, match="429"):
        persist(attempts(failure(429, Retry_After="3600")), patience=PATIENCE, stopped=waits)
    assert waits.seconds == []


def test_who_is_told_to_stop_stops_waiting():
    waits = Waits()
    waits.set()
    with pytest.raises(HubError, match="503"):
        persist(attempts(failure(503)), patience=PATIENCE, stopped=waits)


def test_what_has_no_end_is_left_alone():
    forever = threading.Event()
    with pytest.raises(HubError, match="did not finish"):
        persist(forever.wait, patience=PATIENCE, limit=0.05)
    forever.set()


def test_what_is_called_in_a_thread_gives_back_its_errors():
    waits = Waits()
    attempt = attempts(failure(503), "done")
    assert persist(attempt, patience=PATIENCE, stopped=waits, limit=10.0) == "done"
    assert waits.seconds == [1.0]


def test_an_error_is_explained_from_under_those_that_lie_on_it():
    outer = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    outer.__cause__ = failure(403)
    assert (explain(outer).status, explain(outer).passes) == (403, False)


def test_a_timeout_is_explained_in_few_words():
    class ReadTimeout(OSError):
        pass

    assert explain(ReadTimeout("HTTPConnectionPool(host=..)")).reason == "no answer in time (ReadTimeout)"


def test_a_file_that_is_gone_is_no_failure_of_the_network():
    assert not explain(FileNotFoundError("model.safetensors")).passes


def test_no_token_and_no_signature_is_in_what_is_said(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-any-shape")
    text = "PUT https://host/key?X-Amz-Signature=abc: a-token-of-any-shape, hf_abcdefgh1234"
    assert clean(text) == "PUT https://host/key ***, ***"


@pytest.mark.parametrize("value", ["soon", "-1", "inf", "nan"])
def test_patience_is_a_number(monkeypatch, value):
    monkeypatch.setenv("CLM_HUB_WAIT", value)
    with pytest.raises(OptionError, match="CLM_HUB_WAIT must be a number, 0 or above"):
        Patience.from_environment()


def test_what_the_hubs_client_logs_has_no_signed_address():
    logger, handler = logging.getLogger("huggingface_hub"), logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    try:
        redact_logs()
        logging.getLogger("huggingface_hub.utils._http").warning("lost PUT %s", "http://a/b?X-Amz-Signature=c")
    finally:
        logger.removeHandler(handler)
    assert handler.stream.getvalue() == "lost PUT http://a/b\n"
