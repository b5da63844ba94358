"""Loads from a folder or the Hub, and says in one line what failed."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clm_core.errors import ModelError, first_line

T = TypeVar("T")


def loaded(what: str, name: str, load: Callable[[], T]) -> T:
    """What `load` gives for a folder or a name on the Hub.

    Raises:
        ModelError: it cannot be found or read.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        return load()
    except ModelError as error:
        raise ModelError(f"{what} {name}: {error}") from None
    except HFValidationError:
        raise ModelError(f"{what}: there is no folder {name}, and it cannot be a name on the Hub") from None
    except Exception as error:  # Whatever a damaged file makes a loader raise; tokenizers raises plain Exception.
        reason = first_line(error)[:200]
        if Path(name).exists():
            raise ModelError(f"{what}: cannot read {name}: {reason}") from None
        raise ModelError(
            f"{what} {name!r} is not a local folder, and could not be downloaded from the Hub: {reason} "
            "(check the name and the network; `clm train --config sample` needs neither)"
        ) from None
