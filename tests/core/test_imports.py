"""What the core imports, and when: no framework ever, and nothing slow to say what it can do."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.imports import imported_names

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "clm_core").rglob("*.py"))
TENSORFLOW = sorted((ROOT / "clm_tf").rglob("*.py"))
KERAS = sorted((ROOT / "clm_tf" / "keras3").rglob("*.py"))
FRAMEWORKS = {"torch", "tensorflow", "keras", "tf_keras"}
HEAVY = FRAMEWORKS | {"transformers", "datasets", "evaluate", "numpy"}
# Other people's backends may import what they like; those of clm may not.
OWN = (
    "from importlib import metadata; found = metadata.entry_points; metadata.entry_points = lambda **group: [p for p in"
)
OWN += " found(**group) if p.value.startswith('clm_') and p.dist.name == 'clm'];"
HELP = "from contextlib import suppress; from clm_core.cli import main\nwith suppress(SystemExit): main({})"


def top(path):
    return {name.split(".")[0] for name in imported_names(path)}


@pytest.mark.parametrize(
    "code",
    [
        "import clm_core",
        HELP.format("['--help']"),
        HELP.format("['train', '--help']"),
        HELP.format("['backends']"),
        "from clm_tf import TensorFlowBackend; TensorFlowBackend()",
        "from clm_tf.keras3 import KerasBackend; KerasBackend()",
    ],
    ids=["import", "help", "train help", "backends", "tf", "keras"],
)
def test_what_needs_no_framework_and_no_numbers_imports_none(code):
    program = f"import sys; {OWN}\n{code}\nprint('loaded', sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_which_models_keras_3_has_is_known_without_a_framework():
    program = f"""import sys; from clm_tf.keras3 import KerasBackend
print(KerasBackend().has_model("qwen3"), KerasBackend().has_model("bert"), {FRAMEWORKS!r} & set(sys.modules))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True False set()\n"


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_core_imports_a_framework_or_a_backend(path):
    assert top(path).isdisjoint(FRAMEWORKS | {"accelerate", "clm_pt", "clm_tf"})


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_core_names_a_backend(path):
    text = path.read_text(encoding="utf-8")
    assert [name for name in ("clm_pt", "clm_tf") if name in text] == []


@pytest.mark.parametrize(("package", "other"), [("clm_pt", {"clm_tf", "tensorflow"}), ("clm_tf", {"clm_pt", "torch"})])
def test_one_backend_can_be_deleted_without_the_other_noticing(package, other):
    assert [path.name for path in (ROOT / package).glob("**/*.py") if top(path) & other] == []


@pytest.mark.parametrize("path", KERAS, ids=lambda path: path.stem)
def test_keras_3_takes_from_the_other_backend_of_tensorflow_what_stands_on_no_keras(path):
    taken = {name.split(".")[1] for name in imported_names(path) if name.startswith("clm_tf.")} - {"keras3"}
    assert taken <= {"blocks", "devices", "losses", "sharing", "steps", "together", "uploads"}
    assert top(path).isdisjoint({"tf_keras", "torch", "clm_pt"})


@pytest.mark.parametrize("path", [path for path in TENSORFLOW if path not in KERAS], ids=lambda path: path.stem)
def test_the_other_backend_of_tensorflow_does_not_know_keras_3(path):
    assert not [name for name in imported_names(path) if name.startswith("clm_tf.keras3")]
    assert "keras" not in top(path)
    if path.stem in ("blocks", "losses", "sharing", "steps", "together", "uploads"):
        assert top(path).isdisjoint({"tf_keras", "transformers"})


def test_a_command_leaves_the_environment_of_its_process_as_it_was(tmp_path):
    import os

    from clm_core import cli

    before = dict(os.environ)
    cli.main(["--backend", "bigram", "train", "--max-steps", "1", "--output-dir", str(tmp_path / "run")])
    assert dict(os.environ) == before
