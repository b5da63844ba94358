"""A sample of the sweep: a few architectures of every kind on PyTorch, and all that TensorFlow has."""

import json
from importlib.util import find_spec

import numpy as np
import page
import pytest
import sweep
from frameworks import installed
from probe import new_model, probe, written

IDS = np.random.default_rng(0).integers(0, 64, (3, 16))
PT = ["gpt2", "llama", "mixtral", "mamba", "bert", "roberta", "xlm", "xlnet", "gemma3", "recurrent_gemma"]
TF = ["mistral", "roformer", "xglm", "xlm", "xlnet"]
OTHER_TF = [
    *("bert", "camembert", "ctrl", "gpt2", "gptj", "openai-gpt", "opt", "rembert", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta"),
]
CASES = [("pt", name) for name in PT if find_spec("torch")] + [("tf", name) for name in TF if find_spec("tensorflow")]


@pytest.mark.parametrize(("backend", "model_type"), CASES)
def test_an_architecture_trains_and_is_read_back_by_all_and_sees_no_later_token(backend, model_type, tmp_path):
    probed = installed()
    other = next((one for name, one in probed.items() if name != backend), None)
    finding = probe(model_type, probed[backend], tmp_path, other)
    assert (finding.failed, finding.reason) == ("", "")


@pytest.mark.parametrize("model_type", OTHER_TF if find_spec("tensorflow") else [])
def test_what_a_tensorflow_class_writes_gives_the_same_logits_everywhere(model_type, tmp_path):
    from clm_tf import modeling

    model = modeling.load(new_model(model_type, tmp_path))
    random = np.random.default_rng(0)
    model.set_weights([array + random.normal(0, 0.1, array.shape) for array in model.get_weights()])
    (tmp_path / "model").mkdir()
    modeling.save(model, tmp_path / "model")
    expected = model(IDS, training=False, return_dict=True).logits.numpy()
    for one in installed().values():
        np.testing.assert_allclose(one.load(written(tmp_path))(IDS), expected, rtol=0, atol=1e-5)


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
