"""Every option of the data is part of what prepared data is found again by, or changes nothing of it."""

import json
from dataclasses import fields, replace

import pytest

from clm_core.config import PrepareConfig
from clm_core.config.data import DataOptions, PreprocessingOptions
from clm_core.data.preparation import Preparation
from clm_core.models.tokenizers import load_tokenizer

OF_THE_HUB = {"dataset_name", "dataset_config_name", "dataset_split", "revision", "streaming"}
"""They are in the fingerprint of what the Hub gives, which tests/hub looks at."""

WITHOUT_EFFECT = {"block_size", "overwrite_cache", "preprocessing_num_workers"}
"""Of them, the tokens do not depend, unless the data is packed as in the guide."""

PROMPTED = {"prompt_column": "question", "completion_column": "text"}
CASES = [
    ("train_file", {}, {"train_file": ("other.jsonl",)}),
    ("validation_file", {}, {"validation_file": ("other.jsonl",)}),
    ("validation_split_percentage", {}, {"validation_split_percentage": 50}),
    ("text_column", {}, {"text_column": "question"}),
    ("prompt_column", PROMPTED, {"prompt_column": "text", "completion_column": "question"}),
    ("completion_column", PROMPTED, {"completion_column": "third"}),
    ("text_template", {}, {"text_template": "{question}"}),
    ("messages_column", {"messages_column": "messages"}, {"messages_column": "others"}),
    ("completion_only_loss", PROMPTED, {"completion_only_loss": False}),
    ("sample_by", {"train_file": ("a.txt",)}, {"sample_by": "line"}),
    ("json_field", {"train_file": ("nested.json",), "json_field": "one"}, {"json_field": "other"}),
    ("csv_delimiter", {"train_file": ("a.csv",), "csv_delimiter": ",", "text_column": "a"}, {"csv_delimiter": ";"}),
    ("encoding", {"train_file": ("a.txt",)}, {"encoding": "latin-1"}),
    ("max_train_samples", {}, {"max_train_samples": 1}),
    ("max_train_tokens", {}, {"max_train_tokens": 5}),
    ("max_eval_samples", {}, {"max_eval_samples": 1}),
    ("seed", {}, {"seed": 1}),
    ("append_eos", {}, {"append_eos": False}),
    ("packing", {}, {"packing": "guide"}),
    ("block_size", {"packing": "guide"}, {"block_size": 16}),
    ("preprocessing_num_workers", {"packing": "guide"}, {"preprocessing_num_workers": 2}),
]


@pytest.fixture
def content(tmp_path, monkeypatch):
    """What prepared data is found again by, with some options."""
    monkeypatch.chdir(tmp_path)
    talk = [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]
    row = {"text": "a", "question": "b", "third": "e", "messages": talk, "others": talk[::-1]}
    lines = f"{json.dumps(row)}\n" * 8
    files = {"rows.jsonl": lines, "other.jsonl": lines.replace("a", "f"), "a.txt": "a\n\nb\n"}
    files |= {"nested.json": json.dumps({"one": [row], "other": [row]}), "a.csv": "a,b;a\nc,d;e\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tokenizer = load_tokenizer(PrepareConfig(tokenizer_name="sample"))
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    base = PrepareConfig(tokenizer_name="sample", train_file=("rows.jsonl",))
    return lambda **options: Preparation.make(replace(base, **options), tokenizer).content


@pytest.mark.parametrize(("name", "beside", "changed"), CASES, ids=[case[0] for case in CASES])
def test_data_of_another_option_is_not_taken_for_the_same(content, name, beside, changed):
    assert name in changed
    before = content(**beside)
    assert content(**beside) == before
    assert content(**beside | changed) != before


@pytest.mark.parametrize("changed", [{"block_size": 16}, {"overwrite_cache": True}, {"preprocessing_num_workers": 2}])
def test_what_changes_no_token_has_the_data_found_again(content, changed):
    assert content(**changed) == content()
    assert changed.keys() <= WITHOUT_EFFECT


def test_every_option_of_the_data_is_tried():
    of_data = {field.name for kind in (DataOptions, PreprocessingOptions) for field in fields(kind)}
    assert {name for name, *_ in CASES} | OF_THE_HUB | {"overwrite_cache"} == of_data
