"""Options for a repository on the Hub."""

from dataclasses import dataclass
from typing import Literal

from clm_core.config.declaration import option
from clm_core.config.values import license_name


@dataclass(frozen=True, kw_only=True)
class PublishingOptions:
    """Publishing on the Hub; `clm push` can do it later."""

    push_to_hub: bool = option(False, "upload the result to the Hub; log in with `hf auth login`, or set HF_TOKEN")


@dataclass(frozen=True, kw_only=True)
class RepositoryOptions:
    """The repository on the Hub."""

    hub_private_repo: bool | None = option(
        None, "create a private repository (`--no-hub-private-repo`: public); default: the owner's setting"
    )
    hub_revision: str | None = option(
        None, "the branch to upload to, created if missing; default: main", metavar="BRANCH"
    )
    hub_license: str | None = option(
        None,
        "the licence for the card, by its name on the Hub, such as `mit`; default: none, or the built-in sample's",
        metavar="NAME",
        check=license_name,
    )


@dataclass(frozen=True, kw_only=True)
class ModelRepositoryOptions(RepositoryOptions):
    """The model on the Hub."""

    hub_model_id: str | None = option(
        None,
        "the repository, such as `user/name`; default: the name of the run's folder, in your account",
        metavar="ID",
    )


@dataclass(frozen=True, kw_only=True)
class DatasetRepositoryOptions(RepositoryOptions):
    """The prepared data on the Hub."""

    hub_dataset_id: str | None = option(
        None, "the dataset, such as `user/name`; default: the name of the folder, in your account", metavar="ID"
    )


@dataclass(frozen=True, kw_only=True)
class HubOptions(ModelRepositoryOptions, PublishingOptions):
    """What is uploaded, and when."""

    hub_strategy: Literal["end", "every_save", "checkpoint"] = option(
        "end",
        "what to upload: the model at the end, the model of each checkpoint as well, or also its state, to resume from",
    )
    hub_offline: bool = option(False, "do not contact the Hub; upload later with `clm push`")
