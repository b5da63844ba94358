"""Conversations: the tokens are those of `apply_chat_template`, and what counts is what the assistant says."""

import json

import pyarrow
import pytest
from pyarrow import parquet

import clm_core as clm
from clm_core.config import PrepareConfig
from clm_core.data import preparation
from clm_core.data.preparation import Preparation
from clm_core.errors import DataError, OptionError

MARKED = """{% for message in messages %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.role == 'assistant' %}
    {%- generation -%}
    {{ message.content + '<|im_end|>' }}
    {%- endgeneration %}
{%- else %}
{{- message.content + '<|im_end|>' }}
{%- endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
PLAIN = """{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
STRICT = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + m.role) }}"
STRICT += "{% endif %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
FORGETFUL = "{% for m in messages %}{{ m.role }}: {{ m.content if loop.last else '...' }}<|im_end|>{% endfor %}"

USER, SAID = {"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine, and you?"}
SYSTEM = {"role": "system", "content": "Be kind."}
CONVERSATIONS = {
    "of one turn": [USER, SAID],
    "of several turns": [USER, SAID, USER, {"role": "assistant", "content": "Well."}],
    "with a system turn": [SYSTEM, USER, SAID],
    "that ends with a user": [USER, SAID, USER],
    "that begins with the assistant": [SAID, USER, SAID],
    "with an empty turn": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    "with a tool": [USER, {"role": "tool", "content": "42"}, SAID],
    "in other scripts": [USER, {"role": "assistant", "content": "日本語 é 🙂"}],
}


def prepare(tokenizer, folder, conversations, column="messages", **options):
    file = folder / "a.jsonl"
    file.write_text("".join(json.dumps({column: messages}) + "\n" for messages in conversations), encoding="utf-8")
    given = {"train_file": (str(file),), "validation_split_percentage": 0, "append_eos": False}
    config = PrepareConfig(**{**given, "messages_column": column, **options})
    return preparation.prepare(Preparation.make(config, tokenizer), folder / "prepared", workers=1, overwrite=True)[0]


def counted(prepared, tokenizer):
    """The text of each stretch of tokens that count."""
    ids, mask = prepared.tokens("train"), prepared.mask("train")
    texts, own = [], []
    for token, counts in zip([*ids.tolist(), 0], [*mask.tolist(), 0], strict=True):
        if counts:
            own.append(token)
        elif own:
            texts.append(tokenizer.decode(own))
            own = []
    return texts


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_tokens_and_mask_are_those_of_transformers(chat, tmp_path, name):
    tokenizer = chat(MARKED)
    found = prepare(tokenizer, tmp_path, [CONVERSATIONS[name]])
    expected = tokenizer.apply_chat_template(CONVERSATIONS[name], return_dict=True, return_assistant_tokens_mask=True)
    assert found.tokens("train").tolist() == expected["input_ids"]
    assert found.mask("train").tolist() == expected["assistant_masks"]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_without_marks_in_the_template_turn_by_turn(chat, tmp_path, name):
    tokenizer = chat(PLAIN)
    found = prepare(tokenizer, tmp_path, [CONVERSATIONS[name]])
    said = [message["content"] + "<|im_end|>\n" for message in CONVERSATIONS[name] if message["role"] == "assistant"]
    expected = tokenizer.apply_chat_template(CONVERSATIONS[name], return_dict=True)["input_ids"]
    assert found.tokens("train").tolist() == expected
    if name == "that begins with the assistant":  # Nothing says where its own text begins.
        said[0] = "<|im_start|>assistant\n" + said[0]
    assert counted(found, tokenizer) == said


def parts(*texts):
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


OF_PARTS = "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}"
OF_PARTS += "{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}<|im_end|>{% endfor %}"
LOOSE = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"), [(PLAIN, "How are you?"), (LOOSE, "How are you?"), (OF_PARTS, "<How are>< you?>")]
)
def test_parts_of_a_message_are_text_as_the_template_takes_it(chat, tmp_path, template, expected):
    tokenizer = chat(template)
    found = prepare(tokenizer, tmp_path, [[parts("How are", " you?"), SAID]])
    same = tokenizer.apply_chat_template([{**USER, "content": expected}, SAID], return_dict=True)["input_ids"]
    assert found.tokens("train").tolist() == same


def test_a_part_that_is_no_text_is_an_error_where_the_template_takes_text(chat, tmp_path):
    image = {"role": "user", "content": [{"type": "image", "url": "a.png"}]}
    with pytest.raises(DataError, match=r"row 1, message 1: its content has a part .*'image'.* takes text: leave"):
        prepare(chat(LOOSE), tmp_path, [[image, SAID]])


def test_all_counts_if_it_is_to(chat, tmp_path):
    tokenizer = chat(PLAIN)
    found = prepare(tokenizer, tmp_path, [[USER, SAID], [USER]], completion_only_loss=False)
    assert found.mask("train") is None
    assert found.manifest.splits["train"].documents == 2


def test_a_template_that_rewrites_earlier_turns_is_refused(chat, tmp_path):
    with pytest.raises(DataError, match=r"row 1, message 2: the tokenizer's chat template writes earlier messages in"):
        prepare(chat(FORGETFUL), tmp_path, [[USER, SAID, USER, SAID]])
    assert prepare(chat(FORGETFUL), tmp_path, [[USER, SAID, USER, SAID]], completion_only_loss=False)


def test_the_special_tokens_of_a_template_are_real_and_those_in_a_message_are_not(chat, tmp_path):
    tokenizer = chat(MARKED)
    said = {"role": "assistant", "content": "It ends with <|im_end|>, as <|endoftext|> does."}
    found = prepare(tokenizer, tmp_path, [[USER, said]])
    ids = found.tokens("train").tolist()
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template([USER, said], tokenize=False)
    assert counted(found, tokenizer) == [said["content"] + "<|im_end|>"]


def test_an_end_follows_a_conversation_unless_it_ends_with_one(chat, tmp_path):
    found = prepare(chat(PLAIN), tmp_path, [[USER, SAID]], append_eos=True)
    assert (found.manifest.splits["train"].eos_added, found.mask("train")[-1]) == (1, 1)
    of_chats = chat(PLAIN, eos_token="<|im_end|>")
    assert prepare(of_chats, tmp_path, [[USER, SAID]], append_eos=True).manifest.splits["train"].eos_added == 0


def test_conversations_in_which_the_assistant_says_nothing_are_left_out_and_counted(chat, tmp_path):
    found = prepare(chat(PLAIN), tmp_path, [[USER, SAID], [USER], [], None, [SYSTEM]])
    assert (found.manifest.documents_read, found.manifest.documents_empty) == (5, 4)


def test_messages_of_parquet_and_of_sharegpt_are_the_same(chat, tmp_path):
    tokenizer = chat(MARKED)
    rows = [{"messages": [SYSTEM | {"tool_calls": None}, USER | {"tool_calls": None}, SAID | {"tool_calls": None}]}]
    roles = {"system": "system", "user": "human", "assistant": "gpt"}
    of_sharegpt = [{"from": roles[it["role"]], "value": it["content"]} for it in rows[0]["messages"]]
    one = prepare(tokenizer, tmp_path, [of_sharegpt], column="conversations")
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    config = PrepareConfig(
        train_file=(str(tmp_path / "a.parquet"),),
        validation_split_percentage=0,
        append_eos=False,
        messages_column="messages",
    )
    other, _ = preparation.prepare(Preparation.make(config, tokenizer), tmp_path / "other", workers=1)
    assert one.tokens("train").tolist() == other.tokens("train").tolist()
    assert one.mask("train").tolist() == other.mask("train").tolist()


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "tool", "content": "x"}, SAID], "row 1: the tokenizer's chat template fails: no tool"),
        ([{"content": "x"}], "row 1, message 1 has no role: its fields are content"),
        ([USER, {"role": "assistant"}], "row 1, message 2, of role 'assistant', has no content"),
        (["x"], "row 1: messages_column contains list"),
        ("x", "row 1: messages_column contains str 'x', not a list of messages"),
        ([USER | {"content": 5}, SAID], "row 1, message 1: its content is 5, not text"),
        ([USER, SAID | {"content": 0.5}], "row 1, message 2: its content is 0.5, not text"),
        ([USER, SAID | {"content": True}], "row 1, message 2: its content is True, not text"),
        ([USER, SAID | {"content": "\ufde1"}], "which are no characters of a text"),
        ([USER, SAID | {"content": "\ud83d"}], "is half of a surrogate pair"),
    ],
)
def test_messages_that_are_none_are_refused_by_their_place(chat, tmp_path, messages, says):
    with pytest.raises(DataError, match=says):
        prepare(chat(STRICT), tmp_path, [messages])


def test_messages_of_parquet_are_refused_by_their_row(chat, tmp_path):
    rows = [{"messages": [USER, SAID]}] * 1001 + [{"messages": [USER, {"role": "assistant", "content": None}]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    config = PrepareConfig(train_file=(str(tmp_path / "a.parquet"),), messages_column="messages")
    with pytest.raises(DataError, match=r"a.parquet, row 1002, message 2, of role 'assistant', has no content"):
        preparation.prepare(Preparation.make(config, chat(PLAIN)), tmp_path / "other", workers=1)


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer, tmp_path):
    with pytest.raises(OptionError, match="messages_column: this tokenizer has no chat template"):
        prepare(tokenizer, tmp_path, [[USER, SAID]])


def test_another_template_makes_other_data(chat, tmp_path):
    one, other = (prepare(chat(template), tmp_path, [[USER, SAID]]).manifest.options for template in (PLAIN, MARKED))
    assert one["chat_template"] != other["chat_template"]


def test_messages_are_hinted_at(refused, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"conversations": [USER, SAID]}) + "\n{}\n")
    assert "did you mean --messages-column conversations?" in refused("prepare", "--train-file", "a.jsonl")
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [USER, SAID]}) + "\n{}\n")
    shown = refused("prepare", "--train-file", "a.jsonl", "--text-column", "messages")
    assert "not text: for messages, --messages-column messages" in shown
    with pytest.raises(OptionError, match="no chat template"):
        clm.prepare(train_file="a.jsonl", messages_column="messages")
