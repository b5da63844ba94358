"""What a model card says of a dataset is what the Hub knows of it."""

import pytest
from support.hub_server import Repo

from clm_core.hub.account import DatasetFacts, dataset_facts


@pytest.mark.parametrize(
    ("card", "facts"),
    [
        ({"license": "cc-by-4.0", "language": ["de"]}, DatasetFacts(license="cc-by-4.0", language=["de"])),
        ({"license": ["mit", "cc0-1.0"], "language": "en"}, DatasetFacts(license="mit, cc0-1.0", language=["en"])),
        (None, DatasetFacts()),
    ],
)
def test_the_licence_and_the_language_of_a_data_set_are_those_of_its_card(hub, monkeypatch, card, facts):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    hub.repos["datasets", "jane/data"] = Repo(private=False)
    hub.repos["datasets", "jane/data"].commit("main", {}, "initial commit")
    hub.cards["jane/data"] = card
    assert dataset_facts("jane/data") == facts
    assert dataset_facts("jane/nothing") == DatasetFacts()
