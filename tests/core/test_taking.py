"""Columns that are taken by themselves: conversations, and prompts with completions, where there is no text."""

import json

import pyarrow
import pytest
from pyarrow import parquet

import clm_core as clm
from clm_core import sample
from clm_core.errors import DataError, OptionError

SAID = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine, and you?"}]
CHAT = {"messages": SAID}
QA = {"prompt": "Why?", "completion": " Because."}
TEMPLATE = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}assistant: {% endif %}"


@pytest.fixture
def chat(tokenizer, tmp_path):
    """The name of a tokenizer with a chat template."""
    tokenizer.save_pretrained(tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text(TEMPLATE)
    return str(tmp_path / "chat")


def write(path, rows):
    """Rows in the format that the name of a file says."""
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
        path.write_text(text)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    ("row", "options"),
    [
        (CHAT, {"messages_column": "messages"}),
        (QA, {"prompt_column": "prompt", "completion_column": "completion"}),
        (CHAT | QA, {"messages_column": "messages"}),
        (
            {"prompt": SAID[:1], "completion": SAID[1:]},
            {"messages_column": "prompt", "completion_column": "completion"},
        ),
    ],
)
def test_they_make_the_data_that_the_options_make(chat, tmp_path, row, options, ending, capsys):
    given = {
        "train_file": write(tmp_path / f"a{ending}", [row] * 9),
        "tokenizer_name": chat,
        "progress": clm.terminal_progress(),
    }
    found = clm.prepare(**given)
    flags = " ".join(f"--{name.replace('_', '-')} {column}" for name, column in options.items())
    assert f"no column of the data is called text: reading it with {flags}\n" in capsys.readouterr().err
    named = clm.prepare(**given, **options)
    assert (named.folder, named.reused) == (found.folder, True)
    assert found.ledger["splits"]["train"]["completion"] > 0


@pytest.mark.parametrize(
    ("row", "options", "says"),
    [
        ({"messages": "Fine."}, {}, "has no column 'text'; its columns are messages"),
        ({"messages": [{"content": "Fine."}]}, {}, "has no column 'text'"),
        ({"prompt": "Why?"}, {}, "has no column 'text'; its columns are prompt; name the right one with --text-column"),
        (CHAT, {"packing": "guide"}, "did you mean --messages-column messages"),
        (CHAT, {"text_column": "body"}, "has no column 'body'"),
        (CHAT, {"text_template": "{body}"}, "has no column 'body'"),
    ],
)
def test_what_is_something_else_is_not_taken(chat, tmp_path, row, options, says):
    file = write(tmp_path / "a.jsonl", [row] * 9)
    with pytest.raises(DataError, match=says):
        clm.prepare(train_file=file, tokenizer_name=chat, **options)


def test_a_text_beside_them_stays_the_text(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"text": "A text.", **CHAT, **QA}] * 9)
    assert "prompt" not in clm.prepare(train_file=file, tokenizer_name="sample").ledger["splits"]["train"]


def test_a_conversation_that_is_taken_needs_a_chat_template(tmp_path):
    with pytest.raises(OptionError, match="messages_column: this tokenizer has no chat template"):
        clm.prepare(train_file=write(tmp_path / "a.jsonl", [CHAT] * 9), tokenizer_name=str(sample.TOKENIZER))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_is_read_like_files(tmp_path, monkeypatch, streaming):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "train.jsonl", [QA] * 9)
    given = {"dataset_name": tmp_path / "mine", "tokenizer_name": "sample", "streaming": streaming}
    found = clm.prepare(**given)
    assert found.ledger["splits"]["train"]["completion"] > 0
    assert clm.prepare(**given, prompt_column="prompt", completion_column="completion").reused
