"""`clm parity` runs both frameworks, each in a process of its own, and says how far they agree."""

import json
import sys

import pytest

from clm_core import cli

SMALL = [
    *("--config-overrides", "n_layer=1,n_embd=32,n_head=2,n_positions=32", "--block-size", "32"),
    *("--max-train-samples", "60", "--max-eval-samples", "10", "--max-steps", "4", "--compare-steps", "2"),
]
BOTH = ["--backends", "pt", "tf", "--python-pt", sys.executable, "--python-tf", sys.executable]


@pytest.fixture
def parity(tmp_path, monkeypatch, capsys):
    """Run the command on the sample; returns its exit code and its standard output."""
    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        code = cli.main(["parity", "--config", "sample", *BOTH, *SMALL, *argv])
        return code, capsys.readouterr().out

    return run


def test_both_agree_and_what_they_did_is_kept(parity, tmp_path):
    code, text = parity("--output-dir", "kept", "--gradient-accumulation-steps", "2")
    assert code == 0
    assert text.splitlines()[-1] == "pt and tf agree over 4 steps"
    assert (tmp_path / "kept" / "losses.png").stat().st_size > 1000
    assert (tmp_path / "kept" / "pt" / "checkpoint-4" / "model.safetensors").is_file()


def test_beyond_the_tolerance_the_exit_code_is_1_and_the_place_is_named(parity):
    code, text = parity("--json", "--tolerance", "1e-9", "--learning-rate", "1e-3")
    found = json.loads(text)
    assert code == 1
    assert found["parted"] == next(it for it in found["differences"] if not it["tolerated"])
    assert max(it["relative"] for it in found["differences"] if it["quantity"] == "loss") < 2e-5
    assert found["versions"]["tf"]["tensorflow"]
    assert len(found["losses"]["pt"]) == 4
