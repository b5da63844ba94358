"""A card says what was done, in figures that are those of the run, and how to do it again."""

import json
import re
import shlex

import pytest
from clm_bigram import BigramBackend
from huggingface_hub import ModelCard

import clm_core as clm
from clm_core import cli, marker
from clm_core.errors import OutputError
from clm_core.hub import run_files
from clm_core.hub.account import DatasetFacts
from clm_core.hub.card import set_license, training_options, write_card
from clm_core.record import read_options, read_results
from clm_core.runs.changes import ELSEWHERE


@pytest.fixture
def run(train, tmp_path):
    return train(output_dir=tmp_path / "run", weight_decay=0.01, append_eos=False)


@pytest.fixture
def card(run):
    """The card of a run, as the Hub reads it."""
    write_card(run.output_dir, "jane/fox", data=DatasetFacts(license="cc-by-4.0", language=["de"]))
    return ModelCard.load(run.output_dir / "README.md")


def test_the_hub_gets_the_figures_of_the_last_validation(run, card):
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {name: run.after[name] for name in ("perplexity", "loss", "accuracy", "bits_per_byte")}
    assert (card.data.model_name, card.data.pipeline_tag) == ("fox", "text-generation")


def test_a_person_gets_the_ledger_the_licence_and_the_figures_before_and_after(run, card):
    counts = run.ledger["splits"]["train"]
    assert f"| train | {counts['documents']:,} | {counts['tokens']:,} |" in card.text
    assert "| licence of the data | cc-by-4.0 |" in card.text
    assert f"| perplexity | {run.before['perplexity']:,.4f} | {run.after['perplexity']:,.4f} |" in card.text
    assert f"| tokens scored | {run.after['tokens_scored']:,} |" in card.text
    assert "![Loss over the steps](losses.png)" in card.text
    assert (run.output_dir / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_in_the_card_repeats_the_run(run, card, tmp_path, capsys):
    command = re.search(r"```sh\n(clm --backend bigram train .*?)\n```", card.text, re.DOTALL).group(1)
    arguments = shlex.split(command.replace("\\\n", " "))[1:]
    assert cli.main([*arguments, "--output-dir", "again"]) == 0
    again, first = (tmp_path / name / "model.safetensors" for name in ("again", "run"))
    assert again.read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (dict.fromkeys(ELSEWHERE, "set") | {"train_batch_size": 8}, ["streaming", "train_batch_size"]),
        ({"check_disk": False, "logging_steps": 1, "save_steps": 5, "seed": 2}, ["seed"]),
        ({"nproc_per_node": "2"}, ["nproc_per_node"]),
        ({"preprocessing_num_workers": 2}, []),
        ({"preprocessing_num_workers": 2, "packing": "guide"}, ["packing", "preprocessing_num_workers"]),
    ],
)
def test_the_options_in_it_are_those_that_affect_the_model(options, kept):
    assert sorted(training_options(options)) == kept


def test_no_place_on_this_machine_is_in_it(card, tmp_path):
    assert str(tmp_path) not in card.content
    assert "corpus.jsonl" in card.text


def test_the_model_of_a_foreign_backend_is_not_said_to_open_elsewhere(card):
    assert "from_pretrained" not in card.text
    assert 'clm --backend bigram generate --model-name-or-path jane/fox "Once upon a time"' in card.text


def test_the_backends_that_may_have_the_model_say_how_it_opens(installed, run):
    def backend(name, has):
        return type(name, (BigramBackend,), {"name": name, "opens": f"{name}: {{model}}", "has_model": lambda *_: has})

    installed(bigram=backend("bigram", True), a=backend("a", None), b=backend("b", False), c=backend("c", True))
    write_card(run.output_dir, "jane/fox", data=DatasetFacts())
    text = (run.output_dir / "README.md").read_text()
    assert "\n\na: jane/fox\n\nbigram: jane/fox\n\nc: jane/fox\n\nFrom the command line:" in text


@pytest.mark.parametrize(
    ("model_type", "opening"),
    [("gpt2", ["Auto", "TFAuto", "keras3.load"]), ("qwen3", ["Auto", "keras3.load"]), ("xlnet", ["Auto", "TFAuto"])],
)
def test_a_model_of_clms_own_backends_opens_where_there_is_a_class_for_it(run, model_type, opening):
    rewrite(run.output_dir / "results.json", backend="pt")
    rewrite(run.output_dir / "config.json", model_type=model_type)
    write_card(run.output_dir, "jane/fox", data=DatasetFacts())
    text = (run.output_dir / "README.md").read_text()
    found = [way for way in ("Auto", "TFAuto", "keras3.load") if re.search(rf"\b{way}", text)]
    assert found == opening


def rewrite(file, **changed):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def test_what_is_not_known_of_a_licence_is_not_made_up(run):
    write_card(run.output_dir, "jane/fox", data=DatasetFacts())
    card = ModelCard.load(run.output_dir / "README.md")
    assert "| licence of the data | not known |" in card.text
    assert card.data.license is None


def test_the_language_is_that_of_the_data_and_no_licence_is_taken_from_them(card):
    assert (card.data.language, card.data.license) == (["de"], None)


def test_a_model_of_the_sample_alone_has_its_licence_and_language(tmp_path):
    options = {"max_steps": 2, "eval_strategy": "no", "output_dir": tmp_path / "run"}
    run = clm.train(backend="bigram", config="sample", learning_rate=2e-5, warmup_ratio=0.0, **options)
    write_card(run.output_dir, "jane/fox", data=DatasetFacts())
    card = ModelCard.load(run.output_dir / "README.md")
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en"])


def test_a_model_has_the_licence_that_its_author_gives_it(train, tmp_path):
    run = train(output_dir=tmp_path / "run", hub_license="mit")
    for given, expected in ((None, "mit"), ("openrail", "openrail")):
        write_card(run.output_dir, "jane/fox", data=DatasetFacts(), license=given)
        assert ModelCard.load(run.output_dir / "README.md").data.license == expected


def test_a_licence_that_is_given_later_leaves_the_rest_of_an_edited_card(run, card):
    file = run.output_dir / "README.md"
    file.write_text(file.read_text().replace("# fox", "# My own words"))
    set_license(run.output_dir, "mit")
    again = ModelCard.load(file)
    assert again.data.to_dict() == {**card.data.to_dict(), "license": "mit"}
    assert again.text == card.text.replace("# fox", "# My own words")


def test_a_card_that_is_no_card_any_more_says_where_it_stands(run, card):
    (run.output_dir / "README.md").write_text("---\n: [\n---\n")
    with pytest.raises(OutputError, match=r"hub_license mit: cannot be put into .*README\.md"):
        set_license(run.output_dir, "mit")


@pytest.mark.parametrize("name", ["Apache-2.0", "the licence of my own", "-"])
def test_what_cannot_be_a_licence_is_refused_before_anything_else(train_refused, name):
    assert "hub_license must be a licence by its name on the Hub" in train_refused("--hub-license", name)


def test_a_run_without_validation_has_a_card_too(train, tmp_path):
    run = train(output_dir=tmp_path / "run", validation_split_percentage=0)
    write_card(run.output_dir, "jane/fox", data=DatasetFacts())
    card = ModelCard.load(run.output_dir / "README.md")
    assert card.data.eval_results is None
    assert "The model was not evaluated." in card.text


def test_a_run_that_did_not_end_has_none(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="not a finished run"):
        write_card(tmp_path / "run", "jane/fox", data=DatasetFacts())


def test_what_changed_when_the_run_was_resumed_is_named_with_its_step(run):
    clm.train(backend="bigram", resume_from_checkpoint=run.output_dir, num_train_epochs=2)
    write_card(run.output_dir, "jane/fox", data=DatasetFacts())
    text = ModelCard.load(run.output_dir / "README.md").text
    assert f"| changed after step {run.steps} | num_train_epochs from 1 to 2 |" in text


def test_an_adapter_of_clms_own_backends_opens_with_each(adapter):
    rewrite(adapter / "results.json", backend="keras")
    rewrite(adapter / "config.json", model_type="gpt2")
    write_card(adapter, "jane/fox", data=DatasetFacts())
    text = (adapter / "README.md").read_text()
    assert [way for way in ("AutoPeft", "clm_tf.load", "keras3.load", " AutoModel") if way in text] == [
        *("AutoPeft", "clm_tf.load", "keras3.load")
    ]


@pytest.fixture
def adapter(run, tmp_path):
    """A run whose files are those of an adapter."""
    with (run.output_dir / "run.yaml").open("a") as options:
        options.write("model_name_or_path: jane/base\nlora_r: 4\n")
    base = {"base_model_name_or_path": str(tmp_path / "base"), "r": 4}
    (run.output_dir / "adapter_config.json").write_text(json.dumps(base))
    return run.output_dir


def test_the_card_of_an_adapter_names_its_base_and_says_how_peft_opens_it(adapter, monkeypatch):
    monkeypatch.setattr(BigramBackend, "opens_adapter", "open {model} with peft", raising=False)
    write_card(adapter, "jane/fox", data=DatasetFacts())
    card = ModelCard.load(adapter / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("peft", "jane/base")
    assert "An adapter (LoRA) of [jane/base](https://huggingface.co/jane/base), trained on" in card.text
    assert "open jane/fox with peft" in card.text


def test_the_base_of_an_adapter_that_is_a_folder_is_uploaded_by_its_name_alone(adapter):
    files = run_files.of_run(adapter, read_results(adapter), read_options(adapter))
    assert json.loads(files["adapter_config.json"]) == {"base_model_name_or_path": "base", "r": 4}


def test_a_checkpoint_of_an_adapter_is_whole_in_a_repository_too(adapter, tmp_path):
    checkpoint = next(adapter.glob("checkpoint-*"))
    (adapter / "adapter_config.json").rename(checkpoint / "adapter_config.json")
    files = run_files.of_checkpoint(checkpoint, with_state=True)
    there = tmp_path / checkpoint.name
    there.mkdir()
    for name, content in files.items():
        if name.startswith("last-checkpoint/"):
            data = content if isinstance(content, bytes) else content.read_bytes()
            (there / name.rpartition("/")[2]).write_bytes(data)
    assert marker.faults(there) == []
    assert str(tmp_path) not in (there / "adapter_config.json").read_text()
