"""Whoever may not publish is told before the training, in one line, and nothing is written."""

import pytest
from support.hub_server import TOKEN, Fault, Repo


def of_token(**token):
    return {"auth": {"accessToken": {"displayName": "test", **token}}}


ELSEWHERE = {"scoped": [{"entity": {"type": "user", "name": "joan"}, "permissions": ["repo.write"]}]}
HERE = {"scoped": [{"entity": {"type": "user", "name": "jane"}, "permissions": ["repo.write"]}]}


@pytest.mark.parametrize(
    ("user", "options", "words"),
    [
        (of_token(role="read"), [], ["the token has read access only", "jane/run", "user jane", "/settings/tokens"]),
        (of_token(role="fineGrained", fineGrained=ELSEWHERE), [], ["may not write to jane/run", "/settings/tokens"]),
        ({}, ["--hub-model-id", "joan/run"], ["user jane may not write to joan/run", "jane or of acme"]),
        ({}, ["--hub-model-id", "club/run"], ["user jane in club has read access only", "club/run"]),
        ({}, ["--hub-model-id", "a b"], ["'a b' cannot be the name of a repository"]),
        (
            {},
            ["--hub-model-id", "taken", "--hub-private-repo"],
            ["jane/taken is public, but should be private", "make it private"],
        ),
    ],
)
def test_who_may_not_write_there_is_refused(clm, hub, training, tmp_path, user, options, words):
    hub.user |= user
    hub.repos["models", "jane/taken"] = Repo(private=False)
    hub.repos["models", "jane/taken"].commit("main", {}, "initial commit")
    assert clm(*training, *options) == 2
    assert [word for word in [*words, "push_to_hub", "--hub-offline"] if word not in clm.err] == []
    assert clm.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_who_is_not_logged_in_is_told_how_to(clm, hub, training):
    del clm.environment["HF_TOKEN"]
    assert clm(*training) == 2
    assert "not logged in to the Hub: log in with `hf auth login`, or set HF_TOKEN" in clm.err
    assert hub.requests == []


def test_a_token_that_is_not_accepted_is_told_and_not_shown(clm, training):
    clm.environment["HF_TOKEN"] = "hf_" + "outdatedoutdatedoutdated"
    assert clm(*training) == 2
    assert "does not accept your token" in clm.err
    assert clm.environment["HF_TOKEN"] not in clm.err


def test_a_token_in_the_file_of_hf_auth_login_is_used(clm, training, home):
    del clm.environment["HF_TOKEN"]
    (home / "token").write_text(TOKEN + "\n")
    assert clm(*training) == 0


def test_a_fine_grained_token_for_this_place_is_enough(clm, hub, training):
    hub.user |= of_token(role="fineGrained", fineGrained=HERE)
    assert clm(*training) == 0


@pytest.mark.parametrize("status", [403, 500])
def test_a_repository_that_cannot_be_made_is_found_out_before_the_training(clm, hub, training, tmp_path, status):
    hub.faults = [Fault("POST /api/repos/create", status)]
    assert clm(*training) == 2
    assert f"{status} " in clm.err
    assert not (tmp_path / "run").exists()


def test_a_hub_that_cannot_be_reached_is_found_out_before_the_training(clm, hub, training, tmp_path):
    hub.close()
    assert clm(*training) == 2
    hub.open()
    assert "to train now and upload later, give --hub-offline" in clm.err
    assert not (tmp_path / "run").exists()


def test_a_name_that_comes_with_the_folder_is_checked_before_the_first_step(clm, hub, training, tmp_path):
    del training[training.index("--output-dir") : training.index("--output-dir") + 2]
    hub.faults = [Fault("POST /api/repos/create", 403)]
    assert clm(*training) == 2
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--hub-strategy", "every_save", "--save-strategy", "no"], "save_strategy no writes none"),
        (["--hub-strategy", "checkpoint", "--hub-offline"], "hub_offline uploads nothing"),
    ],
)
def test_options_that_would_be_ignored_are_refused(clm, hub, training, options, word):
    assert clm(*training, *options) == 2
    assert word in clm.err
    assert hub.requests == []
