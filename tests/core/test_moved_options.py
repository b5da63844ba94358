"""An option that was a backend's own before it was one of all is given as before, and as the others are."""

from dataclasses import dataclass

import pytest
import yaml
from clm_bigram import BigramBackend

from clm_core import cli
from clm_core.config import OptimizationOptions, moved
from clm_core.errors import OptionError
from clm_core.options import from_arguments
from clm_core.options.resolve import parity, training

SMALL = ["--model-type", "gpt2", "--tokenizer-name", "sample", "--block-size", "16"]


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The options of a backend that had the number of steps alone."""

    max_steps: int = moved(OptimizationOptions, "max_steps")


@pytest.fixture(autouse=True)
def bigram(monkeypatch):
    monkeypatch.setattr(BigramBackend, "options", Earlier)
    return BigramBackend()


def steps(folder):
    return yaml.safe_load((folder / "run.yaml").read_text()).get("max_steps")


@pytest.mark.parametrize("flag", ["--max-steps", "--bigram-max-steps"])
def test_both_flags_are_taken_and_kept_as_the_one_of_all(corpus, tmp_path, flag):
    data = ["--train-file", str(corpus), *SMALL, "--output-dir", "run"]
    assert cli.main(["--backend", "bigram", "train", *data, flag, "3"]) == 0
    assert steps(tmp_path / "run") == 3


def test_it_is_taken_from_a_file_and_from_python_as_before(bigram, train, tmp_path):
    (tmp_path / "my.yaml").write_text("max_steps: 9\nbigram:\n  max_steps: 3\n")
    assert training({}, file=tmp_path / "my.yaml", backend=bigram).config.max_steps == 3
    assert train(bigram={"max_steps": 2}).steps == 2


def test_a_run_that_kept_it_under_the_name_of_the_backend_is_resumed_with_it(bigram, train, tmp_path):
    train(output_dir="run", max_steps=3)
    options = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    earlier = {**options, "bigram": {"max_steps": options.pop("max_steps")}}
    (tmp_path / "run" / "run.yaml").write_text(yaml.safe_dump(earlier))
    given = from_arguments({"resume_from_checkpoint": "run"})
    assert training(given, file=None, backend=bigram).config.max_steps == 3


def test_the_help_shows_the_one_of_all_alone(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    shown = capsys.readouterr().out
    assert " --max-steps" in shown
    assert "--bigram-max-steps" not in shown


def test_one_side_of_a_comparison_may_have_it_as_before():
    pytest.importorskip("clm_pt")
    sides = {"backends": ["pt", "tf"], "python": {"pt": "python", "tf": "python"}}
    request = parity(from_arguments({**sides, "pt": {"gradient_checkpointing": True}}), file=None)
    assert request.options["pt"].gradient_checkpointing
    assert not request.config.gradient_checkpointing
    with pytest.raises(OptionError, match="backend tf does not support gradient_checkpointing"):
        parity(from_arguments({**sides, "gradient_checkpointing": True}), file=None)


@pytest.mark.parametrize("given", [{"gradient_checkpointing": True}, {"tf": {"gradient_checkpointing": True}}])
def test_a_backend_that_never_had_it_refuses_it_and_names_one_that_has(given):
    backend = pytest.importorskip("clm_tf.backend").TensorFlowBackend()
    with pytest.raises(OptionError, match=r"does not support gradient_checkpointing: .* --backend keras or pt has it"):
        training(from_arguments(given), file=None, backend=backend)
