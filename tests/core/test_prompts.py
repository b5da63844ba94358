"""Prompts and completions: what counts of a row, from its columns to the mask on disk."""

import json
from decimal import Decimal
from functools import partial

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

import clm_core as clm
from clm_core.backend import labels_at
from clm_core.config import PrepareConfig
from clm_core.data import merging, preparation
from clm_core.data.manifest import read_manifest
from clm_core.data.preparation import Preparation
from clm_core.data.prepared import Prepared
from clm_core.data.readers.files import Layout, expand, read
from clm_core.errors import DataError

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(st.tuples(WORDS, WORDS), max_size=20)
COLUMNS = {"prompt_column": "question", "completion_column": "answer"}
TEXTS = ["How many cats sit on the mat?", " Two cats sit on it, and one more comes.", "the mat. It is a mat"]


def write(folder, rows, name="a.jsonl"):
    text = "".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in rows)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def prepare(tokenizer, folder, rows, name="prepared", **options):
    config = PrepareConfig(
        **{"train_file": (write(folder, rows),), "validation_split_percentage": 0, **COLUMNS, **options}
    )
    return preparation.prepare(Preparation.make(config, tokenizer), folder / name, workers=1)[0]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(rows=ROWS, block_size=st.integers(2, 20))
@settings(max_examples=40)
def test_the_labels_are_those_of_the_completions_and_of_the_ends(tokenizer, tmp_path_factory, rows, block_size):
    rows = [*rows, ("what?", "at least this"), ("", "an answer to nothing"), ("no answer", " ")]
    ids, labels = [], []
    for question, answer in rows:
        if question.strip() and answer.strip():
            asked, said = (tokenizer(text, split_special_tokens=True)["input_ids"] for text in (question, answer))
            ids += [*asked, *said, 0]
            labels += [-100] * len(asked) + [*said, 0]
    prepared = prepare(tokenizer, tmp_path_factory.mktemp("prompts"), rows)
    cut = [(ids[at : at + block_size], labels[at : at + block_size]) for at in range(0, len(ids), block_size)]
    kept = [(it, own) for it, own in cut if len(it) == block_size and any(label >= 0 for label in own[1:])]
    blocks = prepared.blocks("train", block_size)
    assert prepared.tokens("train").tolist() == ids
    assert labels_at(blocks).tolist() == [own for _, own in kept]
    assert np.asarray(blocks).reshape(-1).tolist() == [token for it, _ in kept for token in it]
    counts = prepared.ledger(block_size)["splits"]["train"]
    assert counts["tokens"] + counts["eos_added"] == counts["tokens_kept"] + counts["tokens_dropped"]
    assert counts["prompt"] + counts["completion"] == counts["tokens"]
    assert counts["masked"] == sum(own.count(-100) for _, own in kept)
    assert counts["blocks_masked"] == len(ids) // block_size - len(kept)


def test_without_the_loss_on_completions_alone_the_tokens_are_the_same_and_there_is_no_mask(tokenizer, tmp_path):
    rows = [(f"Why {number}?", f" Because {number}.") for number in range(20)]
    masked, whole = (
        prepare(tokenizer, tmp_path, rows, name, completion_only_loss=yes) for name, yes in (("a", None), ("b", False))
    )
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(json.dumps({"text": asked + said}) + "\n" for asked, said in rows))
    config = PrepareConfig(train_file=(str(plain),), validation_split_percentage=0)
    text, _ = preparation.prepare(Preparation.make(config, tokenizer), tmp_path / "c", workers=1)
    assert [*content(masked.folder)] != [*content(whole.folder)] == [*content(text.folder)]
    for name in ("train.bin", "train.ends"):
        assert content(masked.folder)[name] == content(whole.folder)[name] == content(text.folder)[name]
    assert text.manifest.splits == whole.manifest.splits
    assert "mask" not in json.loads((text.folder / "manifest.json").read_text())["splits"]["train"]


@given(rows=ROWS, count=st.integers(1, 4))
@settings(max_examples=25)
def test_the_shards_joined_are_byte_for_byte_the_whole(tokenizer, tmp_path_factory, rows, count):
    folder = tmp_path_factory.mktemp("shards")
    rows = [*rows, *((f"what is {number}", f"it is {number}") for number in range(12))]
    make = partial(prepare, tokenizer, folder, rows, validation_split_percentage=25)
    made = [make(f"part {i}", shard=f"{i}/{count}").folder for i in range(1, count + 1)]
    merging.merge(made, folder / "joined", overwrite=False, say=print)
    assert content(folder / "joined") == content(make("whole").folder)
    assert "train.mask" in content(folder / "joined")


def test_without_the_ends_the_mask_is_copied_too(tokenizer, tmp_path, monkeypatch):
    rows = [(f"Why {number}?", f" Because {number}.") for number in range(20)]
    config = PrepareConfig(train_file=(write(tmp_path, rows),), validation_split_percentage=0, **COLUMNS)
    preparation.prepare(Preparation.make(config, tokenizer), workers=1)
    derived = prepare(tokenizer, tmp_path, rows, "derived", append_eos=False)
    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "other"))
    assert content(derived.folder) == content(prepare(tokenizer, tmp_path, rows, "anew", append_eos=False).folder)


def byte_level(**options):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet))
    return tokenizer


def sentence_piece(prepend_scheme=None):
    tokenizer = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>"))
    if prepend_scheme:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    else:  # As Llama 2 has it.
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=30, special_tokens=["<unk>", "<s>", "</s>"]))
    return tokenizer


KINDS = {
    "a GPT-2": byte_level(add_prefix_space=False),
    "a GPT-2 that puts a space before": byte_level(add_prefix_space=True),
    "a Llama 2": sentence_piece(),
    "a Llama of today": sentence_piece("first"),
    "a T5": sentence_piece("always"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_comes_between_a_prompt_and_its_completion_whatever_the_tokenizer(tmp_path, kind):
    KINDS[kind].post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, KINDS[kind].token_to_id(name)) for name in ("<s>", "</s>")]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=KINDS[kind], bos_token="<s>", eos_token="</s>")
    prepared = prepare(fast, tmp_path, [(TEXTS[0][:20], TEXTS[0][20:])], block_size=2)
    ids, mask = prepared.tokens("train").tolist(), prepared.mask("train").tolist()
    assert fast.decode(ids, skip_special_tokens=True).strip() == TEXTS[0]
    assert (ids[0], ids[-1]) == (fast.bos_token_id, fast.eos_token_id)
    assert mask == sorted(mask)
    assert fast.decode(ids[: mask.index(1)], skip_special_tokens=True).strip() == TEXTS[0][:20]


def test_a_tokenizer_in_python_has_a_mask_as_well(tmp_path):
    prepared = prepare(ByT5Tokenizer(), tmp_path, [("abc", "de")], block_size=2)
    assert prepared.mask("train").tolist() == [0, 0, 0, 1, 1, 1]  # It puts its end after a text itself.


def test_what_looks_like_a_special_token_is_text_in_a_prompt_and_in_a_completion(tokenizer, tmp_path):
    prepared = prepare(tokenizer, tmp_path, [("a <|endoftext|> b", "c <|endoftext|> d")])
    assert prepared.tokens("train").tolist().count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize(
    ("template", "completion", "row", "expected"),
    [
        ("{question}|{answer}", None, {"question": "a", "answer": "b"}, ("a|b", "")),
        (r"Q: {question}\nA: {answer}\\n{{}}", None, {"question": "a", "answer": "b"}, ("Q: a\nA: b\\n{}", "")),
        ("{question}\n{answer}.", "answer", {"question": "a", "answer": "b"}, ("a\n", "b.")),
        ("{question}{input}\n{answer}", "answer", {"question": "a", "input": None, "answer": "b"}, ("a\n", "b")),
        ("{it.question}: {it.answer}", "it.answer", {"it": {"question": "a", "answer": ["b", "c"]}}, ("a: ", "b c")),
        ("{question}{input}: {answer}", "answer", {"question": 0, "input": True, "answer": 0.25}, ("0true: ", "0.25")),
        ("{question}-{input}", None, {"question": [1, "a", None], "input": False}, ("1 a-false", "")),
    ],
)
def test_a_template_is_filled_in(tokenizer, tmp_path, template, completion, row, expected):
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": "x", "input": "x", "answer": "x"} | row) + "\n{}\n")
    config = PrepareConfig(
        train_file=(str(tmp_path / "a.jsonl"),),
        validation_split_percentage=0,
        text_template=template,
        completion_column=completion,
        append_eos=False,
    )
    prepared, _ = preparation.prepare(Preparation.make(config, tokenizer), tmp_path / "prepared", workers=1)
    ids, mask = prepared.tokens("train"), prepared.mask("train")
    masked = ids[:0] if mask is None else ids[mask == 0]
    assert tokenizer.decode(ids) == "".join(expected)
    assert tokenizer.decode(masked) == (expected[0] if completion else "")


def test_numbers_and_booleans_are_the_same_text_from_json_parquet_and_csv(tmp_path):
    row = {"whole": 1234567, "half": 0.5, "yes": True}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (tmp_path / "a.csv").write_text("whole,half,yes\n1234567,0.5,true\n")
    columns = {name: [value] for name, value in row.items()} | {"whole": [Decimal(1234567)]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    layout = Layout(text_template="{whole} {half} {yes}")
    found = {tuple(read(file, layout)) for file in expand("train_file", [str(tmp_path / "a.*")])}
    assert found == {("1234567 0.5 true",)}


def test_a_number_in_the_place_of_a_text_is_an_error_that_says_how_to_take_it(tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"row 1: column 'answer' contains int '5', not text: .*template '\{answer\}'$"):
        prepare(tokenizer, tmp_path, [("how many?", 5)])


@pytest.mark.parametrize("options", [{}, {"prompt_column": None, "text_template": " {question}\n{answer}"}])
def test_rows_without_a_prompt_or_a_completion_are_left_out_and_counted(tokenizer, tmp_path, options):
    rows = [("a", "b"), (None, "b"), ("a", None), ("", "b"), ("a", " \n"), ("c", ["d", "e"])]
    prepared = prepare(tokenizer, tmp_path, rows, **options)
    assert (prepared.manifest.documents_read, prepared.manifest.documents_empty) == (6, 4)
    assert prepared.manifest.splits["train"].documents == 2


def test_a_mask_that_is_damaged_is_found(tokenizer, tmp_path):
    prepared = prepare(tokenizer, tmp_path, [("a", "b")] * 9)
    mask = bytearray((prepared.folder / "train.mask").read_bytes())
    mask[0] ^= 1
    (prepared.folder / "train.mask").write_bytes(mask)
    with pytest.raises(DataError, match=r"train\.mask does not match its checksum"):
        Prepared.open(prepared.folder).verify()
    (prepared.folder / "train.mask").unlink()
    with pytest.raises(DataError, match=r"train\.mask has 0 bytes"):
        Prepared.open(prepared.folder)


def test_another_mask_makes_another_run(tokenizer, tmp_path):
    rows = [(f"Why {number}?", f" Because {number}.") for number in range(20)]
    one, other = (
        read_manifest(prepare(tokenizer, tmp_path, rows, name, completion_only_loss=yes).folder).splits["train"]
        for name, yes in (("a", True), ("b", False))
    )
    assert one.sha256 == other.sha256 == other.content != one.content


def test_inspect_shows_what_is_masked(tmp_path):
    clm.prepare(prompt_column="title", completion_column="answers.text", output_dir="sample")
    found = clm.inspect("sample")
    asked, said = found.block["pieces"][0]["parts"][:2]
    assert (asked["counts"], said["counts"]) == (False, True)
    assert asked["text"] + said["text"] == found.block["pieces"][0]["text"]
    assert asked["text"].startswith("ELI5: ")


QA = b'{"question": "a", "answer": "b"}\n'


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--prompt-column question", "prompt_column 'question' needs a completion_column"),
        ("--completion-column answer", "completion_column 'answer' needs a prompt_column"),
        ("--prompt-column question --completion-column anwser", "did you mean --completion-column answer?"),
        ("--prompt-column q --completion-column answer", "a.jsonl has no column 'q'; its columns are question, answer"),
        ("--text-column text --prompt-column question --completion-column answer", "has no effect with prompt_column"),
        ("--messages-column question --text-template {answer}", "and messages_column 'question' cannot be combined"),
        ("--prompt-column question --text-template {answer}", "cannot be combined: leave one of them out"),
        ("--text-template {qestion}", "did you mean {question} in --text-template?"),
        ("--prompt-column answer --completion-column answer", "completion_column 'answer' is prompt_column too: name"),
        ("--text-template nothing", "there is no column in it, such as {question}"),
        ("--text-template {question", "expected '}' before end of string: a brace that is text is written twice"),
        ("--text-template {question:3}", "{question:3} is not a column: give its name alone"),
        ("--text-template {}", "{} is not a column: give its name alone"),
        ("--text-template {question} --completion-column answer", "has to be once in text_template, whose columns are"),
        (
            "--text-template {answer}{question} --completion-column answer",
            "there is no prompt before it: leave complet",
        ),
        ("--completion-only-loss", "completion_only_loss yes has no effect without completion_column or messages_col"),
        ("", "did you mean --prompt-column question --completion-column answer?"),
        ("--messages-column question", "row 1: messages_column contains str 'a', not a list of messages"),
        ("--prompt-column question --completion-column answer --packing guide", "the guide's rows have one text each"),
    ],
)
def test_columns_that_make_no_document_are_refused(train_refused, tmp_path, options, says):
    (tmp_path / "a.jsonl").write_bytes(QA * 40)
    assert says in train_refused(*options.split(), data=("--train-file", "a.jsonl"))


def test_text_files_have_no_columns(train_refused, tmp_path):
    (tmp_path / "a.txt").write_bytes(QA * 40)
    shown = train_refused("--text-template", "{question}", data=("--train-file", "a.txt"))
    assert "text_template '{question}': .txt files have no columns, leave it out" in shown


def test_a_backend_that_trains_on_all_tokens_refuses_what_is_masked(train_refused, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(QA * 400)
    columns = ("--prompt-column", "question", "--completion-column", "answer")
    shown = train_refused(*columns, data=("--train-file", "a.jsonl"))
    assert "completion_only_loss: backend bigram trains on all tokens" in shown
    run = clm.train(
        backend="bigram", train_file="a.jsonl", **COLUMNS, completion_only_loss=False, tokenizer_name="sample",
        model_type="gpt2", block_size=16, per_device_train_batch_size=4, output_dir="run",
    )  # fmt: skip
    assert run.tokens_trained > 0


def test_columns_given_replace_those_of_a_file(tmp_path):
    (tmp_path / "a.yaml").write_text("text_column: other\ntokenizer_name: sample\ntrain_file: a.jsonl\n")
    (tmp_path / "a.jsonl").write_bytes(QA * 400)
    found = clm.prepare(config="a.yaml", **COLUMNS, output_dir="prepared")
    assert found.ledger["splits"]["train"]["prompt"] > 0
