"""What stands under a backend's name in a file holds for that backend alone."""

import pytest
from support.able import Able

import clm_core as clm
from clm_core.config import TrainConfig
from clm_core.errors import OptionError
from clm_core.options.given import Given
from clm_core.options.recipes import list_recipes
from clm_core.options.resolve import evaluation, parity, preparation, training
from clm_core.registry import get_backend

BIGRAM = get_backend("bigram")


@pytest.fixture
def file(tmp_path):
    def write(text):
        (tmp_path / "my.yaml").write_text(text)
        return tmp_path / "my.yaml"

    return write


def test_an_option_under_the_name_of_the_backend_wins_over_the_one_above_it(train, file):
    path = file("max_steps: 9\nlogging_steps: 1\nbigram:\n  max_steps: 3\ntf:\n  max_steps: 7\n")
    assert train(config=path).steps == 3
    assert train(config=path, max_steps=2).steps == 2
    assert train(max_steps=9, bigram={"max_steps": 4}).steps == 4


def test_a_run_keeps_what_held_for_it(train, file, tmp_path):
    run = train(config=file("bigram:\n  per_device_eval_batch_size: 3\n"), output_dir="run")
    assert "per_device_eval_batch_size: 3" in (tmp_path / "run" / "run.yaml").read_text()
    found = evaluation({}, file=file("bigram:\n  per_device_eval_batch_size: 5\n  max_steps: 3\n"), backend=BIGRAM)
    assert found.config.per_device_eval_batch_size == 5
    assert run.steps


@pytest.mark.parametrize("name", ["block_size", "packing", "train_file", "output_dir", "model_type", "seed"])
def test_what_is_trained_on_what_is_the_same_for_all(file, name):
    with pytest.raises(OptionError, match=f"unknown option {name} .*line 2"):
        training({}, file=file(f"bigram:\n  {name}: 3\n"), backend=BIGRAM)


@pytest.mark.parametrize("section", ["bigram", "tf"])
def test_a_wrong_value_is_refused_whether_it_is_used_or_not(file, section):
    pytest.importorskip("clm_tf")
    path = file(f"{section}:\n  max_steps: many\n")
    for make in (lambda: training({}, file=path, backend=BIGRAM), lambda: preparation({}, file=path)):
        with pytest.raises(OptionError, match="max_steps must be a whole number, not 'many'"):
            make()


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("warmup_ratio: 0.5", ("warmup_steps", 3)),
        ("warmup_steps: 3", ("warmup_ratio", 0.5)),
        ("max_trained_tokens: 99", ("max_steps", 2)),
        ("max_steps: 2", ("max_trained_tokens", 99)),
        ("freeze: [wte]", ("train_only", ("wpe",))),
        ("train_only: [wte]", ("freeze", ("wpe",))),
    ],
)
def test_an_option_replaces_in_a_file_what_says_the_same_in_another_way(file, written, given):
    name, value = given
    found = training({name: Given(value, "here")}, file=file(f"model_type: gpt2\n{written}\n"), backend=Able()).config
    other = written.split(":")[0]
    assert getattr(found, name) == value
    assert getattr(found, other) == getattr(TrainConfig(), other)


def test_a_file_of_a_training_prepares_as_ever(file):
    assert preparation({}, file=file("block_size: 32\nbigram:\n  max_steps: 3\n")).block_size == 32


def test_an_option_for_another_backend_is_refused_in_a_call(train):
    with pytest.raises(OptionError, match=r"tf\['max_steps'\] is an option of backend tf, and this run is on bigram"):
        train(tf={"max_steps": 3})


def test_a_comparison_refuses_what_only_one_side_has(file):
    with pytest.raises(OptionError, match="line 2: this option is for one backend only"):
        parity({}, file=file("tf:\n  learning_rate: 1e-3\n"))


def test_what_a_backend_cannot_do_is_refused_there_as_well(file):
    with pytest.raises(OptionError, match="backend bigram does not support learning_rate"):
        training({}, file=file("bigram:\n  learning_rate: 1\n"), backend=BIGRAM)


@pytest.mark.parametrize("recipe", list_recipes())
@pytest.mark.parametrize("backend", ["pt", "tf"])
def test_every_recipe_is_a_request_that_each_backend_takes(recipe, backend):
    try:
        chosen = get_backend(backend)
    except clm.ClmError as error:
        pytest.skip(str(error))
    assert training({}, file=recipe, backend=chosen).config.block_size == 128


@pytest.mark.parametrize(("name", "meant"), [("run", "run/run.yaml"), ("run/run.ymal", "run/run.yaml")])
def test_the_folder_of_a_run_or_a_slip_in_a_name_leads_to_the_file(train, name, meant):
    train(output_dir="run")
    with pytest.raises(OptionError, match=f"--config {name}: no such file; .* did you mean {meant}?"):
        train(config=name, output_dir="other")
