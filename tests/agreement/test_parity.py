"""`clm parity` runs both frameworks, each in a process of its own, and says how far they agree."""

import contextlib
import io
import json
import shutil
import sys

import pytest

from clm_core import cli
from clm_core.comparison import compare as comparison

SMALL = [
    *("--config-overrides", "n_layer=1,n_embd=32,n_head=2,n_positions=32", "--block-size", "32"),
    *("--max-train-samples", "60", "--max-eval-samples", "10", "--max-steps", "4", "--compare-steps", "2"),
    *("--gradient-accumulation-steps", "2", "--learning-rate", "1e-3"),
]
BOTH = ["--backends", "pt", "tf", "--python-pt", sys.executable, "--python-tf", sys.executable]


def parity(*argv):
    """Run the command on the sample; returns its exit code and its standard output."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = cli.main(["parity", "--config", "sample", *BOTH, *SMALL, *argv])
    return code, printed.getvalue()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder of a comparison, its exit code, and what it printed."""
    folder = tmp_path_factory.mktemp("parity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLM_CACHE", str(folder / "cache"))
        return folder / "kept", *parity("--output-dir", str(folder / "kept"))


def test_both_agree_and_what_they_did_is_kept(kept):
    folder, code, text = kept
    assert code == 0
    assert text.splitlines()[-1] == "pt and tf agree over 4 steps"
    assert (folder / "losses.png").stat().st_size > 1000
    assert (folder / "pt" / "checkpoint-4" / "model.safetensors").is_file()


def test_beyond_the_tolerance_the_exit_code_is_1_and_the_place_is_named(kept, monkeypatch):
    def done_before(name, python, folder, progress):
        shutil.copytree(kept[0] / name, folder / name)

    monkeypatch.setattr(comparison, "_run_side", done_before)
    monkeypatch.setenv("CLM_CACHE", str(kept[0].parent / "cache"))
    code, text = parity("--json", "--tolerance", "1e-9")
    found = json.loads(text)
    assert code == 1
    assert found["parted"] == next(it for it in found["differences"] if not it["tolerated"])
    assert max(it["relative"] for it in found["differences"] if it["quantity"] == "loss") < 2e-5
    assert found["versions"]["tf"]["tensorflow"]
    assert len(found["losses"]["pt"]) == 4


def test_both_agree_on_completions_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "cache"))
    columns = ("--prompt-column", "title", "--completion-column", "answers.text")
    code, text = parity("--json", *columns, "--per-device-train-batch-size", "3")
    found = json.loads(text)
    assert code == 0
    assert max(it["relative"] for it in found["differences"] if it["quantity"] == "loss") < 2e-5
