"""Conversations of two columns, and tools beside them: as `apply_chat_template` has them."""

import json

import pyarrow
import pytest
from pyarrow import parquet
from test_chat import FORGETFUL, MARKED, PLAIN, SAID, SYSTEM, USER, counted

from clm_core.config import PrepareConfig
from clm_core.data import preparation
from clm_core.data.preparation import Preparation
from clm_core.errors import DataError, OptionError

OF_TOOLS = "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}" + PLAIN
TOOLS = [
    {"type": "function", "function": {"name": "find", "parameters": {"properties": {"text": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "add", "parameters": {"properties": {"a": {"type": "number"}}}}},
]
SORTED = json.loads(json.dumps(TOOLS, sort_keys=True))
"""In the order of their names, in which an early pyarrow writes them."""


def of_rows(tokenizer, folder, rows, ending=".jsonl", **options):
    file = folder / f"rows{ending}"
    if ending == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"train_file": (str(file),), "validation_split_percentage": 0, "append_eos": False}
    config = PrepareConfig(**{**given, "messages_column": "messages", **options})
    return preparation.prepare(Preparation.make(config, tokenizer), folder / "of rows", workers=1, overwrite=True)[0]


@pytest.mark.parametrize("template", [MARKED, PLAIN])
@pytest.mark.parametrize(
    ("prompt", "completion", "said"),
    [
        ([USER], [SAID], "Fine, and you?<|im_end|>\n"),
        ([SYSTEM, USER, SAID, USER], [SAID], "Fine, and you?<|im_end|>\n"),
        ([USER], [SAID, USER], "Fine, and you?<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n"),
        ([USER], [{"role": "tool", "content": "42"}], "<|im_start|>tool\n42<|im_end|>\n"),
    ],
)
def test_what_counts_is_all_that_follows_the_prompt(chat, tmp_path, template, prompt, completion, said):
    tokenizer = chat(template)
    rows = [{"prompt": prompt, "completion": completion}, {"prompt": [], "completion": [SAID]}]
    found = of_rows(tokenizer, tmp_path, rows, messages_column="prompt", completion_column="completion")
    whole = tokenizer.apply_chat_template([*prompt, *completion], return_dict=True)["input_ids"]
    assert found.tokens("train").tolist() == whole
    assert counted(found, tokenizer) == [said]
    assert found.manifest.documents_empty == 1


@pytest.mark.parametrize(("ending", "tools"), [(".jsonl", TOOLS), (".parquet", SORTED)], ids=["jsonl", "parquet"])
def test_tools_are_given_to_the_template(chat, tmp_path, ending, tools):
    tokenizer = chat(OF_TOOLS)
    rows = [{"messages": [USER, SAID], "tools": tools}, {"messages": [USER, SAID], "tools": None}]
    found = of_rows(tokenizer, tmp_path, rows, ending)
    given = tokenizer.apply_chat_template([USER, SAID], tools=tools, return_dict=True)["input_ids"]
    without = tokenizer.apply_chat_template([USER, SAID], return_dict=True)["input_ids"]
    assert found.tokens("train").tolist() == [*given, *without]
    assert counted(found, tokenizer) == ["Fine, and you?<|im_end|>\n"] * 2


def test_tools_may_be_json_as_text_and_have_a_template_of_their_own(chat, tmp_path):
    of_both = chat({"default": PLAIN, "tool_use": OF_TOOLS})
    one = of_rows(of_both, tmp_path, [{"messages": [USER, SAID], "tools": json.dumps(TOOLS)}]).tokens("train").tolist()
    other = of_rows(chat(OF_TOOLS), tmp_path, [{"messages": [USER, SAID], "tools": TOOLS}]).tokens("train").tolist()
    assert one == other


def test_arguments_that_other_rows_have_are_none_of_a_call(chat, tmp_path):
    template = "{% for m in messages %}{{ m.role }}{{ m.content or m.tool_calls | tojson }}\n{% endfor %}"
    calls = [{"function": {"name": "find", "arguments": arguments}} for arguments in ({"text": "a"}, {"place": "b"})]
    rows = [{"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]} for call in calls]
    found = of_rows(chat(template), tmp_path, rows, ".parquet", completion_only_loss=False)
    assert "null" not in chat(template).decode(found.tokens("train"))


@pytest.mark.parametrize(
    ("template", "row", "says"),
    [
        (PLAIN, {"tools": TOOLS}, "row 1: the tokenizer's chat template does not write tools"),
        (OF_TOOLS, {"tools": "find"}, "row 1: column 'tools' contains str 'find', not a list of tools"),
        (OF_TOOLS, {"tools": ["find"]}, "row 1: column 'tools' contains list"),
        (OF_TOOLS, {"tools": {"name": "find"}}, "row 1: column 'tools' contains dict"),
        (OF_TOOLS, {"completion": "Fine."}, "row 1: completion_column contains str 'Fine.', not a list of messages"),
        (FORGETFUL, {"completion": [SAID, USER]}, "message 3: .* what the assistant says: give --no-completion-only"),
    ],
)
def test_what_a_template_cannot_have_is_refused(chat, tmp_path, template, row, says):
    options = {"completion_column": "completion"} if "completion" in row else {}
    with pytest.raises(DataError, match=says):
        of_rows(chat(template), tmp_path, [{"messages": [USER, SAID], **row}], **options)


def test_templates_without_a_default_and_a_column_that_is_both_are_refused(chat, tmp_path):
    with pytest.raises(OptionError, match="messages_column: This model has multiple chat templates with no default"):
        of_rows(chat({"a": PLAIN, "b": MARKED}), tmp_path, [{"messages": [USER, SAID]}])
    with pytest.raises(OptionError, match="completion_column 'messages' is messages_column too: leave"):
        of_rows(chat(PLAIN), tmp_path, [{"messages": [USER, SAID]}], completion_column="messages")
