"""Every example runs as it stands."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BACKENDS = [name for name, module in {"pt": "torch", "tf": "tensorflow"}.items() if importlib.util.find_spec(module)]


def run(folder: Path, script: str, *arguments: str) -> str:
    environment = {**os.environ, "CLM_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_api_trains_scores_and_generates(tmp_path, backend):
    printed = run(tmp_path, "api.py", backend, "3")
    assert "perplexity" in printed
    assert "scored again" in printed


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_guide_runs_with_another_recipe(tmp_path, backend):
    recipe = "model_type: gpt2\nconfig_overrides: n_layer=1,n_embd=32,n_head=2\ntokenizer_name: sample\n"
    (tmp_path / "small.yaml").write_text(recipe + "max_steps: 3\n")
    assert "Somatic hypermutation" in run(tmp_path, "guide.py", backend, "small.yaml")


@pytest.mark.skipif("tf" not in BACKENDS, reason="needs TensorFlow")
def test_a_plain_keras_fit_works_with_the_stages(tmp_path):
    assert "validation loss" in run(tmp_path, "keras_fit.py", "3")


@pytest.mark.skipif("tf" not in BACKENDS, reason="needs TensorFlow")
def test_the_guides_tensorflow_tab_runs_line_by_line(tmp_path):
    assert "Perplexity: " in run(tmp_path, "keras_guide.py", "2")


@pytest.mark.skipif("pt" not in BACKENDS, reason="needs PyTorch")
def test_a_trainer_of_ones_own_works_with_the_stages(tmp_path):
    assert "eval_loss" in run(tmp_path, "pytorch_trainer.py", "3")
