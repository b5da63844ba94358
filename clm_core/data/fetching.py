"""Prepared data by name: a folder here, or a dataset on the Hub, downloaded into the Hub's cache."""

from pathlib import Path

from clm_core.data.prepared import FILES, PUBLICATION
from clm_core.errors import DataError
from clm_core.hub_requests import explain
from clm_core.paths import is_path


def fetch(name: str) -> Path:
    """The folder of prepared data: a local one, or a dataset on the Hub, `user/name` or `user/name@revision`.

    What was downloaded before is used if the Hub cannot be reached.

    Raises:
        DataError: there is neither.
    """
    if "/" not in name or is_path(name):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    repository, _, revision = name.partition("@")
    try:
        # Without the card, which is not prepared data.
        return Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision or None, allow_patterns=[*FILES - {PUBLICATION}]
            )
        )
    except HFValidationError:
        raise DataError(f"prepared: there is no folder {name}, and it cannot be a name on the Hub") from None
    except Exception as error:  # Of whichever client is installed.
        raise DataError(
            f"prepared: there is no folder {name}, and it could not be downloaded from the Hub: {explain(error).reason}"
        ) from None
