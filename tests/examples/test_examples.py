"""Every example runs as it stands."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BACKENDS = [name for name, module in {"pt": "torch", "tf": "tf_keras"}.items() if importlib.util.find_spec(module)]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where the first example leaves the sample prepared, and the others find it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(cache, tmp_path, monkeypatch, capsys):
    """Run a script with arguments, in this process, where the frameworks are imported; returns what it printed."""

    def start(script, *arguments):
        monkeypatch.setenv("CLM_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return start


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_api_trains_scores_and_generates(run, backend):
    printed = run("api.py", backend, "3")
    assert "perplexity" in printed
    assert "scored again" in printed


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_guide_runs_with_another_recipe(run, tmp_path, backend):
    recipe = "model_type: gpt2\nconfig_overrides: n_layer=1,n_embd=32,n_head=2\ntokenizer_name: sample\n"
    (tmp_path / "small.yaml").write_text(recipe + "max_steps: 3\n")
    assert "Somatic hypermutation" in run("guide.py", backend, "small.yaml")


@pytest.mark.skipif("tf" not in BACKENDS, reason="needs TensorFlow")
def test_a_plain_keras_fit_works_with_the_stages(run):
    assert "validation loss" in run("keras_fit.py", "3")


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_a_keras_3_fit_trains_saves_exports_and_takes_lora(run, tmp_path):
    printed = run("keras3_fit.py", "3")
    assert "validation loss" in printed
    assert "numbers trained by LoRA" in printed
    assert {"keras3-fit", "keras3-fit.keras", "keras3-fit-served"} == {
        path.name for path in (tmp_path / "runs").iterdir()
    }


@pytest.mark.skipif("tf" not in BACKENDS, reason="needs TensorFlow")
def test_the_guides_tensorflow_tab_runs_line_by_line(run):
    assert "Perplexity: " in run("keras_guide.py", "2")


@pytest.mark.skipif("pt" not in BACKENDS, reason="needs PyTorch")
def test_a_trainer_of_ones_own_works_with_the_stages(run):
    assert "eval_loss" in run("pytorch_trainer.py", "3")
