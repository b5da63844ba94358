"""What was published is used by its name, with a network and, from then on, without one."""

import json
import math
from importlib.util import find_spec

import pytest
from safetensors.numpy import load, save

FRAMEWORKS = {"pt": "torch", "tf" if find_spec("tf_keras") else "keras": "tensorflow"}
"""A backend for each: what is published is the same in TensorFlow, whichever Keras it has."""

INSTALLED = [name for name, module in FRAMEWORKS.items() if find_spec(module)]

TINY = "n_layer=1,n_embd=16,n_head=2,n_positions=64"


@pytest.fixture(params=INSTALLED)
def clm(request, new_clm, environment):
    """Commands of clm on a framework; transformers cannot do without PyTorch where it is installed."""
    for name in ("USE_TORCH", "USE_TF"):
        del environment[name]
    environment["CLM_BACKEND"] = request.param
    return new_clm(environment)


def test_a_model_is_continued_scored_and_trained_on_by_its_name(clm, hub, training, tmp_path):
    validated = training[: training.index("--validation-split-percentage")]
    small = ["--config-overrides", TINY, "--learning-rate", "0.01"]
    assert clm(*of_steps(validated, 4), *small, "--output-dir", "run", "--push-to-hub", "--hub-private-repo") == 0
    assert hub.files("jane/run")["model.safetensors"] == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert "from_pretrained" in hub.files("jane/run")["README.md"].decode()
    run = json.loads((tmp_path / "run" / "results.json").read_text())

    generate = ["generate", "--max-new-tokens", "8", "Why is sky number", "--json", "--model-name-or-path"]
    texts = []
    for place in ("run", "jane/run"):
        assert clm(*generate, place) == 0
        texts.append(json.loads(clm.out)["completion"])
    data = ["--train-file", "corpus.jsonl", "--block-size", "16"]
    assert clm("evaluate", "--model-name-or-path", "jane/run", *data, "--json") == 0
    assert json.loads(clm.out)["metrics"]["perplexity"] == pytest.approx(run["after"]["perplexity"], rel=1e-6)
    onward = [
        "train",
        "--model-name-or-path",
        "jane/run",
        *data,
        "--max-steps",
        "1",
        "--output-dir",
        "onward",
        "--json",
    ]
    assert clm(*onward) == 0
    assert json.loads(clm.out)["before"]["loss"] == pytest.approx(run["after"]["loss"], rel=1e-6)

    hub.close()
    assert clm(*generate, "jane/run") == 0
    hub.open()
    assert [*texts, json.loads(clm.out)["completion"]] == texts[:1] * 3


def test_what_was_downloaded_is_used_where_hf_hub_offline_says_so(clm, hub, training, new_clm, environment):
    assert clm(*of_steps(training, 1), "--config-overrides", TINY) == 0
    generate = ["generate", "--max-new-tokens", "4", "Why", "--model-name-or-path", "jane/run"]
    assert clm(*generate) == 0
    before = len(hub.requests)
    offline = new_clm({**environment, "HF_HUB_OFFLINE": "1"})
    assert offline(*generate) == 0
    assert offline.out == clm.out
    assert offline(*training, "--overwrite-output-dir") == 2
    assert "HF_HUB_OFFLINE is set" in offline.err
    assert len(hub.requests) == before


@pytest.mark.parametrize("clm", INSTALLED[:1], indirect=True)  # The core finds adapters.
def test_an_adapter_is_used_by_its_name_beside_the_commit_of_its_base(clm, hub, training, tmp_path):
    data = ["--train-file", "corpus.jsonl", "--block-size", "16"]
    base = ["base" if word == "run" else word for word in of_steps(training, 1)]
    assert clm(*base, "--config-overrides", TINY) == 0
    adapted = ["--lora-r", "2", "--learning-rate", "0.1", "--max-steps", "3", "--output-dir", "run", "--push-to-hub"]
    assert clm("train", "--model-name-or-path", "jane/base", *data, *adapted) == 0
    run = json.loads((tmp_path / "run" / "results.json").read_text())
    described = json.loads(hub.files("jane/run")["adapter_config.json"])
    commit = hub.repos["models", "jane/base"].branches["main"]
    assert (described["base_model_name_or_path"], described["revision"]) == ("jane/base", commit)
    assert "model.safetensors" not in hub.files("jane/run")

    # What the base is from now on is another model.
    files = hub.files("jane/base")
    weights = {name: 0 * weight for name, weight in load(files["model.safetensors"]).items()}
    hub.repos["models", "jane/base"].commit("main", {**files, "model.safetensors": save(weights)}, "Forget all")
    evaluate = ["evaluate", *data, "--json", "--model-name-or-path"]
    found = {}
    for name in ("jane/base", "jane/run"):
        assert clm(*evaluate, name) == 0
        found[name] = json.loads(clm.out)["metrics"]["loss"]
    assert found["jane/run"] == pytest.approx(run["after"]["loss"], rel=1e-6)
    assert found["jane/base"] == pytest.approx(math.log(json.loads(files["config.json"])["vocab_size"]), rel=1e-6)
    texts = []
    for place in ("run", "jane/run"):
        assert clm("generate", "--max-new-tokens", "8", "Why is sky", "--model-name-or-path", place) == 0
        texts.append(clm.out)
    assert texts[0] == texts[1]


def of_steps(training, steps):
    """The same training, of another length."""
    place = training.index("--max-steps") + 1
    return [*training[:place], str(steps), *training[place + 1 :]]
