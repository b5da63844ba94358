"""The user on the Hub: login, write access, repositories, and facts about datasets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clm_core.errors import HubError
from clm_core.hub_requests import Failure, Patience, bounded, explain, persist, redact_logs

WAYS_IN = "log in with `hf auth login`, or set HF_TOKEN"
MODEL, DATASET = "model", "dataset"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository on the Hub, and a branch of it."""

    id: str
    """`namespace/name`."""
    kind: str
    """`model` or `dataset`."""
    revision: str
    private: bool | None
    """None if the owner's settings decide."""


class Hub:
    """A connection of a user who is logged in. The token stays with huggingface_hub."""

    def __init__(self, api: Any, who: dict[str, Any], patience: Patience, say: Callable[[str], None]) -> None:
        self.api, self.patience, self.say = api, patience, say
        self.user: str = who["name"]
        self._who = who

    @classmethod
    def connect(cls, say: Callable[[str], None] = lambda line: None, *, token: str | None = None) -> "Hub":
        """Log in with the token that huggingface_hub has.

        Raises:
            HubError: there is none, it is not accepted, or the Hub cannot be reached.
        """
        from huggingface_hub import HfApi, constants, get_token

        if constants.HF_HUB_OFFLINE:
            raise HubError("HF_HUB_OFFLINE is set, so that nothing can be uploaded: unset it")
        if not (token or get_token()):
            raise HubError(f"you are not logged in to the Hub: {WAYS_IN}")
        redact_logs()
        api, patience = HfApi(token=token), Patience.from_environment()

        def who() -> dict[str, Any]:
            try:
                found: dict[str, Any] = api.whoami()
                return found
            except Exception as error:
                raise _of_login(api.endpoint, explain(error)) or error from None

        return cls(api, persist(who, patience=patience, say=say), patience, say)

    def full_name(self, name: str) -> str:
        """`namespace/name`, where the namespace is your own if none is given.

        Raises:
            HubError: it cannot be a name, or you may not write there.
        """
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        full = name if "/" in name else f"{self.user}/{name}"
        try:
            validate_repo_id(full)
        except HFValidationError as error:
            reason = str(error).split(": '")[0]
            raise HubError(f"{name!r} cannot be the name of a repository: {reason}; choose another") from None
        self._check_may_write(full)
        return full

    def make(self, repository: Repository) -> str:
        """Create a repository and its branch if missing, and return its address.

        Raises:
            HubError: you may not, or it exists and is public, but should be private.
        """
        found: str = persist(lambda: self.make_once(repository), patience=self.patience, say=self.say)
        return found

    def make_once(self, repository: Repository) -> str:
        """The same in one attempt, with huggingface_hub's errors for failures that are worth retrying."""
        at = {"repo_id": repository.id, "repo_type": repository.kind}
        try:
            address = str(self.api.create_repo(**at, private=repository.private, exist_ok=True))
        except Exception as error:
            failure = explain(error)
            if failure.status in (401, 403):
                raise HubError(
                    f"user {self.user} may not create {repository.id} on the Hub: {failure.reason}"
                ) from None
            raise
        if repository.private and not self.api.repo_info(**at).private:
            raise HubError(
                f"{repository.id} is public, but should be private: make it private at {address}/settings, or "
                "choose another name"
            )
        if repository.revision != "main" and not repository.revision.startswith("refs/"):
            self.api.create_branch(**at, branch=repository.revision, exist_ok=True)
        return address

    def _check_may_write(self, full: str) -> None:
        namespace = full.split("/")[0]
        roles = {self.user: "admin", **{org["name"]: org.get("roleInOrg") for org in self._who.get("orgs", [])}}
        if namespace not in roles:
            raise HubError(
                f"user {self.user} may not write to {full}: choose a repository of "
                f"{' or of '.join(name for name, role in roles.items() if role != 'read')}, or log in as someone else"
            )
        token = self._who.get("auth", {}).get("accessToken", {})
        if token.get("role") == "read" or roles[namespace] == "read":
            whose = "the token" if token.get("role") == "read" else f"user {self.user} in {namespace}"
            raise HubError(
                f"{whose} has read access only, and {full} needs write access (user {self.user}): "
                f"create a token with write access at {self.api.endpoint}/settings/tokens, and {WAYS_IN}"
            )
        if token.get("role") == "fineGrained" and not _covers(token.get("fineGrained"), {namespace, full}):
            raise HubError(
                f"the token of user {self.user} may not write to {full}: give it write access there at "
                f"{self.api.endpoint}/settings/tokens"
            )


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What the Hub knows about a dataset; None if it does not say, or cannot be reached."""

    license: str | None = None
    language: list[str] | None = None


def dataset_facts(name: str, revision: str | None = None) -> DatasetFacts:
    """What the Hub knows about a dataset."""
    from huggingface_hub import HfApi

    try:
        with bounded(Patience.from_environment().timeout):
            card = HfApi().dataset_info(name, revision=revision).card_data
    except Exception:  # A card without it is better than no card.
        return DatasetFacts()
    known = card.to_dict() if card else {}
    license, language = _list(known.get("license")), _list(known.get("language"))
    return DatasetFacts(license=", ".join(license) or None, language=language or None)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(item) for item in value or []]


def _covers(grants: dict[str, Any] | None, names: set[str]) -> bool:
    """Whether a fine-grained token has write access to one of the names; None if it does not tell."""
    if not grants or "scoped" not in grants:
        return True
    return any(
        scope.get("entity", {}).get("name") in names and "repo.write" in scope.get("permissions", ())
        for scope in grants["scoped"]
    )


def _of_login(endpoint: str, failure: Failure) -> HubError | None:
    if failure.status in (401, 403):
        return HubError(f"{endpoint} does not accept your token ({failure.reason}): {WAYS_IN}")
    return None
