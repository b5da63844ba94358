"""The parts of `nox -s real` and `nox -s gpu`, on a tiny model and on whatever this machine has."""

import json

import gpu
import plain
import pytest
import real
import through_clm
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from clm_core import sample


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder of a model as people have them, dropout included."""
    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "cache"))
    tokenizer, sizes = AutoTokenizer.from_pretrained(sample.TOKENIZER), {"n_embd": 32, "n_layer": 1, "n_head": 2}
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, initializer_range=0.2, **sizes)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Ask the programs in this process, where the frameworks are imported; the test of a GPU asks in processes."""
    programs = {"plain": plain.main, "through_clm": through_clm.main}
    asked, answered = tmp_path / "request.json", tmp_path / "answer.json"

    def ask(program, request):
        asked.write_text(json.dumps(request), encoding="utf-8")
        programs[program](str(asked), str(answered))
        return json.loads(answered.read_text(encoding="utf-8"))

    monkeypatch.setattr(real, "ask", ask)


@pytest.mark.usefixtures("here")
def test_a_model_gives_the_tokens_losses_and_text_of_plain_transformers(tiny, tmp_path):
    file = tmp_path / "real-0.json"
    assert real.main([str(file), str(tiny)]) == 0
    found = json.loads(file.read_text())[str(tiny)]
    assert sorted(found) == real.backends()
    assert all(row["agrees"] and row["blocks"] >= 20 for row in found.values())
    assert file.with_suffix(".md").read_text().count("the same | the same") == len(found)


def test_a_model_that_cannot_be_had_is_a_row_that_says_why(tmp_path):
    (tmp_path / "empty").mkdir()
    found = real.examine(str(tmp_path / "empty"), tmp_path)
    assert all("none" in row for row in found.values())


def test_a_model_that_differs_makes_the_comparison_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(real, "examine", lambda name, folder: {"pt": {"agrees": False, "none": "it crashed"}})
    assert real.main([str(tmp_path / "real-0.json"), "gpt2"]) == 1
    assert "| gpt2 | `pt` | it crashed |" in (tmp_path / "real-0.md").read_text()


def test_the_figures_of_a_gpu_are_measured_as_those_of_the_cpu(monkeypatch):
    monkeypatch.setattr(gpu, "PLACES", gpu.PLACES[:1])
    (row,) = gpu.measure("pt", max_steps=2, max_train_samples=80, max_eval_samples=8)
    assert (row["device"], len(row["losses"])) == ({"name": "CPU", "peak": 0}, 2)
    assert gpu.problem(row, [row]) == ""
    assert gpu.problem({**row, "place": "GPU"}, [row]) == "no GPU was used"
    assert f"| `pt` | CPU | float32 | {row['before']:.6f} |" in gpu.page([row])


def test_a_loss_that_parts_from_the_cpus_is_named():
    cpu = {"backend": "pt", "place": "CPU", "bf16": False, "after": 2.0, "device": {"peak": 0}}
    gpus = {**cpu, "place": "GPU", "after": 2.1, "device": {"peak": 1}}
    assert gpu.problem(gpus, [cpu, gpus]) == "its last loss is 5.0e-02 from that of pt on the CPU"
