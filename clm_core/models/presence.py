"""Whether a model or tokenizer is in a folder or on the Hub, found out in one request."""

from pathlib import Path

from clm_core.errors import ModelError
from clm_core.hub_requests import explain
from clm_core.paths import is_cached, is_path, likely

REACHING = 10.0
"""Seconds in which the Hub has to answer."""


def look_for(option: str, name: str, revision: str = "main") -> None:
    """Find out at once that a model is neither in a local folder nor on the Hub.

    Raises:
        ModelError: there is no such folder, or the Hub does not answer.
    """
    if not is_here(option, name):
        reach(name, revision)


def is_here(option: str, name: str) -> bool:
    """Whether a name is that of a folder here, and not one on the Hub.

    Raises:
        ModelError: it can only be a folder here, and there is none.
    """
    if is_gone(name):
        raise ModelError(f"{option}: there is no folder {name}{likely(name)}")
    return is_path(name)


def is_gone(name: str) -> bool:
    """Whether a name can only be that of a folder here, and there is none."""
    return is_path(name) and not Path(name).exists()


def reach(name: str, revision: str) -> None:
    """Make sure that the Hub answers, if a name needs it: its own clients try six times for each file.

    Raises:
        ModelError: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE or is_cached(name, revision):
        return
    try:
        HfApi().model_info(name, revision=revision, timeout=REACHING)
    except Exception as error:
        failure = explain(error)
        if failure.status is None and failure.passes:
            raise ModelError(
                f"{name!r} is not a local folder, and the Hub cannot be reached: {failure.reason} "
                "(`clm train --config sample` needs no network)"
            ) from None
