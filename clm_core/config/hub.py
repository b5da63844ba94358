"""The options of a repository on the Hub."""

from dataclasses import dataclass
from typing import Literal

from clm_core.config.declaration import option
from clm_core.config.values import license_name


@dataclass(frozen=True, kw_only=True)
class PublishingOptions:
    """Publishing on the Hub; `clm push` does it at any time later."""

    push_to_hub: bool = option(False, "upload what was made to the Hub; log in with `hf auth login`, or set HF_TOKEN")


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """The repository on the Hub."""

    hub_private_repo: bool | None = option(
        None, "make the repository a private one, or a public one; default: as its owner's settings say"
    )
    hub_revision: str | None = option(
        None, "the branch to upload to; made if it is not there; default: main", metavar="BRANCH"
    )
    hub_license: str | None = option(
        None,
        "the licence, for the card, as the Hub calls it, such as `mit`; default: none, but for the built-in sample's",
        metavar="NAME",
        check=license_name,
    )


@dataclass(frozen=True, kw_only=True)
class ModelRepositoryOptions(RepositoryOptions):
    """The name of a model on the Hub."""

    hub_model_id: str | None = option(
        None, "the repository, such as `user/name`; default: the name of the run's folder, under your own", metavar="ID"
    )


@dataclass(frozen=True, kw_only=True)
class DatasetRepositoryOptions(RepositoryOptions):
    """The name of prepared data on the Hub."""

    hub_dataset_id: str | None = option(
        None, "the data set, such as `user/name`; default: the name of the folder, under your own", metavar="ID"
    )


@dataclass(frozen=True, kw_only=True)
class HubOptions(ModelRepositoryOptions, PublishingOptions):
    """What of a training is published, and when."""

    hub_strategy: Literal["end", "every_save", "checkpoint"] = option(
        "end",
        "what to upload: the trained model at the end; each checkpoint's model as well; and its state, to resume from",
    )
    hub_offline: bool = option(False, "ask the Hub for nothing now, and leave the upload to `clm push`")
