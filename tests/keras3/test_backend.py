"""The package is light until it is used, and complete; it computes with TensorFlow, or not at all."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("keras")

import clm_tf.keras3
from clm_core.errors import BackendError
from clm_tf.keras3.backend import KerasBackend, compute_with_tensorflow

JOBS = ["train", "evaluate", "generate", "logits"]


@pytest.fixture
def not_imported(monkeypatch):
    """A process in which Keras was not imported yet."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", clm_tf.keras3.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(clm_tf.keras3, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        clm_tf.keras3.nonsense  # noqa: B018


@pytest.mark.parametrize("engine", ["jax", "torch", "numpy", "openvino", "Tensorflow"])
def test_another_engine_is_refused_by_name_before_keras_is_imported(not_imported, engine):
    not_imported.setenv("KERAS_BACKEND", engine)
    for act in (lambda: KerasBackend().start(verbose=True), KerasBackend().quiet):
        with pytest.raises(BackendError, match=f"KERAS_BACKEND is {engine}, .* set KERAS_BACKEND=tensorflow"):
            act()
    assert "keras" not in sys.modules


@pytest.mark.parametrize("job", JOBS)
def test_no_job_runs_on_another_engine_that_keras_was_imported_with(monkeypatch, job):
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(config=SimpleNamespace(backend=lambda: "jax")))
    with pytest.raises(BackendError, match="KERAS_BACKEND is jax"):
        getattr(KerasBackend(), job)(None)


@pytest.mark.parametrize("given", [None, "", "tensorflow"])
def test_tensorflow_is_named_to_keras_whatever_its_own_settings_say(not_imported, given):
    not_imported.setenv("KERAS_BACKEND", given or "")
    if given is None:
        not_imported.delenv("KERAS_BACKEND")
    compute_with_tensorflow()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_a_command_with_another_engine_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "clm_core", "--backend", "keras", "train", "--output-dir", "run"]
    done = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": "jax"}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
    assert done.stderr.startswith("clm: error: KERAS_BACKEND is jax")


@pytest.mark.parametrize("given", ["", "1"])
def test_the_legacy_switch_of_tensorflow_is_neither_set_nor_needed(given):
    code = "import os, clm_tf.keras3\nclm_tf.keras3.load\nimport keras\n"
    code += "print(keras.__version__[0], os.environ.get('TF_USE_LEGACY_KERAS', ''))"
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environment |= {"TF_USE_LEGACY_KERAS": given} if given else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", *given]
