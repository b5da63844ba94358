"""How a model generates, as its folder says: read before anything slow starts, and refused by name if it is damaged."""

from pathlib import Path

import pytest
from small_corpus import SMALL

import clm_core as clm
from clm_core.errors import ModelError
from clm_core.models.configurations import existing_model
from clm_core.models.generation_settings import check_settings

TEXT = '{"text": "the cat sat on the mat ."}\n' * 200


@pytest.fixture
def run(tmp_path):
    Path("cats.jsonl").write_text(TEXT)
    clm.train(backend="bigram", train_file="cats.jsonl", output_dir="run", save_strategy="no", **SMALL)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is damaged, or cannot be read"),
        ("", "is damaged, or cannot be read"),
        ("[1]", "it holds no JSON object"),
        ('{"num_return_sequences": 3}', "without beam search do not support `num_return_sequences`"),
    ],
)
def test_a_model_with_settings_that_do_not_load_is_neither_trained_nor_scored_nor_continued(run, content, says):
    (run / "generation_config.json").write_text(content)
    model = {"backend": "bigram", "model_name_or_path": run}
    for command in (
        lambda: clm.train(**model, train_file="cats.jsonl", output_dir="new", block_size=16),
        lambda: clm.evaluate(**model),
        lambda: clm.generate("the cat", **model),
    ):
        with pytest.raises(ModelError, match=rf"run/generation_config\.json.*{says}"):
            command()
    assert not Path("new").exists()


def test_a_folder_in_the_place_of_the_file_is_named(run):
    (run / "generation_config.json").unlink(missing_ok=True)
    (run / "generation_config.json").mkdir()
    with pytest.raises(ModelError, match=r"run/generation_config\.json is not a file"):
        check_settings(existing_model(run))


def test_a_model_that_contradicts_itself_is_loaded(run):
    (run / "generation_config.json").write_text('{"temperature": 0.5, "do_sample": false}')
    check_settings(existing_model(run))
