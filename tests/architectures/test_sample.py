"""A sample of the sweep that `nox -s architectures` makes of all: a few of every kind, and of those that are mended."""

import json
from importlib.util import find_spec

import page
import pytest
import sweep
from frameworks import counterpart, installed
from probe import probe

PT = ["gpt2", "llama", "mixtral", "mamba", "bert", "roberta", "xlm", "xlnet", "gemma3", "recurrent_gemma"]
TF = ["roformer", "xglm", "xlm"]
KERAS = ["gemma3_text", "qwen3"]
CASES = [("pt", name) for name in PT if find_spec("torch")] + [("tf", name) for name in TF if find_spec("tf_keras")]
CASES += [("keras", name) for name in KERAS if find_spec("tensorflow")]


@pytest.mark.parametrize(("backend", "model_type"), CASES)
def test_an_architecture_trains_and_is_read_back_by_all_and_sees_no_later_token(backend, model_type, tmp_path):
    probed = installed()
    other = counterpart(backend, model_type, probed)
    finding = probe(model_type, probed[backend], tmp_path, other)
    assert (finding.failed, finding.reason) == ("", "")


def test_what_takes_too_long_costs_its_own_result_alone():
    found = dict(sweep.probe_all(["gpt2", "llama"], limit=0.01))
    assert [findings["pt"]["reason"] for findings in found.values()] == ["no answer in 0.01 s"] * 2


def test_the_page_is_made_of_what_was_found():
    assert page.PAGE.read_text(encoding="utf-8") == page.render(page.read())


@pytest.mark.parametrize("series", page.read())
def test_no_architecture_fails_without_a_reason(series):
    swept = json.loads((page.DOCS / f"architectures-{series}.json").read_text(encoding="utf-8"))
    findings = [finding for found in swept["found"].values() for finding in found.values()]
    assert [finding for finding in findings if finding["failed"] and not finding["reason"]] == []
