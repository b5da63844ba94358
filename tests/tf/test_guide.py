"""`--config eli5-guide` on TensorFlow is the guide's own script: the same rows and losses, but for the shuffling."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import tf_keras as keras
from guide_script import group_texts
from transformers import AdamWeightDecay, AutoTokenizer, DataCollatorForLanguageModeling, GPT2Config

import clm_core as clm
import clm_tf
from clm_core import sample
from clm_core.errors import DataError, OptionError
from clm_core.options import recipes
from clm_tf import guide as tab

BLOCK = 16
TEXTS = [f"Why is sky number {n} so blue? {'It is. ' * (n % 5)}{'<|endoftext|>' * (n % 9 == 4)}" for n in range(80)]
"""With special tokens in some, of which the guide's collator makes labels to ignore."""
ARCHITECTURE = GPT2Config(
    vocab_size=2048, n_positions=BLOCK, n_embd=16, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A model without dropout and its tokenizer, and the two splits in files."""
    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    new = clm.Model(name_or_path=None, revision="main", architecture=ARCHITECTURE, seed=0)
    clm_tf.save(clm_tf.load(new), tmp_path / "model")
    AutoTokenizer.from_pretrained(sample.TOKENIZER).save_pretrained(tmp_path / "model")
    for name, texts in (("train", TEXTS[:60]), ("test", TEXTS[60:])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.fixture
def in_order(monkeypatch):
    """Take the shuffling out of the recipe."""
    shuffled = tab.dataset_of_rows
    monkeypatch.setattr(
        tab, "dataset_of_rows", lambda model, blocks, shuffle, **more: shuffled(model, blocks, shuffle=False, **more)
    )


class Losses(keras.callbacks.Callback):
    """The loss of each batch; Keras' own is a running mean."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(logs["loss"]))


def guide(folder: Path) -> tuple[list[float], list[float]]:
    """The guide's script without its shuffling: the loss of each step, and of each evaluation."""
    texts = {"train": TEXTS[:60], "test": TEXTS[60:]}
    eli5 = datasets.DatasetDict({name: datasets.Dataset.from_dict({"text": text}) for name, text in texts.items()})
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenized_eli5 = eli5.map(lambda examples: tokenizer(examples["text"]), batched=True, remove_columns=["text"])
    lm_dataset = tokenized_eli5.map(group_texts, fn_kwargs={"block_size": BLOCK}, batched=True)
    tokenizer.pad_token = tokenizer.eos_token
    data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False, return_tensors="tf")
    optimizer = AdamWeightDecay(learning_rate=2e-3, weight_decay_rate=0.01)
    where = clm.Model(name_or_path=str(folder / "model"), revision="main", architecture=ARCHITECTURE, seed=0)
    model = clm_tf.load(where)  # TFAutoModelForCausalLM reads no weights of PyTorch's layout without PyTorch.
    tf_train_set = model.prepare_tf_dataset(
        lm_dataset["train"], shuffle=False, drop_remainder=True, batch_size=16, collate_fn=data_collator
    )
    tf_test_set = model.prepare_tf_dataset(lm_dataset["test"], shuffle=False, batch_size=16, collate_fn=data_collator)
    model.compile(optimizer=optimizer)
    losses = Losses()
    history = model.fit(x=tf_train_set, validation_data=tf_test_set, epochs=3, callbacks=[losses], verbose=0)
    return losses.found, history.history["val_loss"]


def recipe(folder: Path, **options):
    """The recipe on the same data, but for the data set and the learning rate, which a tiny model needs larger."""
    own = ("dataset_name", "dataset_split", "text_column")
    lines = (recipes.FOLDER / "eli5-guide.yaml").read_text().splitlines(keepends=True)
    (folder / "recipe.yaml").write_text("".join(line for line in lines if not line.startswith(own)))
    chosen = {
        "train_file": folder / "train.jsonl",
        "validation_file": folder / "test.jsonl",
        "model_name_or_path": folder / "model",
        "preprocessing_num_workers": 1,
        "block_size": BLOCK,
        "learning_rate": 2e-3,
        "logging_steps": 1,
    }
    return clm.train(backend="tf", config=folder / "recipe.yaml", **chosen | options)


def values(result, name):
    return [line[name] for line in result.history if name in line]


def test_the_losses_are_those_of_the_guides_script(places, in_order):
    losses, evaluations = guide(places)
    found = recipe(places, output_dir=places / "run")
    np.testing.assert_allclose(values(found, "loss"), losses, rtol=0, atol=1e-5)
    np.testing.assert_allclose(values(found, "eval_loss")[1:], evaluations, rtol=0, atol=1e-5)
    train = found.ledger["splits"]["train"]
    assert len(losses) == 3 * (train["blocks"] // 16)
    assert found.tokens_trained == len(losses) * 16 * (BLOCK - 1)
    assert found.after["tokens_scored"] < found.ledger["splits"]["validation"]["blocks"] * (BLOCK - 1)


def test_the_shuffling_follows_the_seed_and_the_last_step_may_lie_within_an_epoch(places):
    options = {"max_steps": 6, "eval_strategy": "no"}
    one, two, other = (recipe(places, output_dir=places / f"run-{n}", seed=n // 2, **options) for n in range(3))
    assert values(one, "loss") == values(two, "loss") != values(other, "loss")
    assert one.steps == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps"),
        ({"save_strategy": "epoch"}, "save_strategy epoch"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end needs checkpoints"),
        ({"max_train_time": "8h"}, "max_train_time needs checkpoints"),
        ({"tf": {"decay_all": False}}, "--tf-decay-all"),
        ({"optim": "muon"}, "optim muon: the guide trains with AdamW"),
    ],
    ids=str,
)
def test_what_the_tab_has_not_is_refused_by_name(places, change, message):
    with pytest.raises(OptionError, match=f"tf guide: .*{message}"):
        recipe(places, output_dir=places / "run", **change)


def test_clipping_changes_the_training_as_asked(places, in_order):
    options = {"max_steps": 2, "eval_strategy": "no", "adam_epsilon": 1e-2}
    one = recipe(places, output_dir=places / "one", **options)
    two = recipe(places, output_dir=places / "two", max_grad_norm=1e-3, **options)
    assert values(one, "loss")[0] == values(two, "loss")[0]
    assert values(one, "loss")[1] != values(two, "loss")[1]


@pytest.fixture
def prepared(places):
    files = {"train_file": places / "train.jsonl", "validation_file": places / "test.jsonl"}
    return clm.prepare(**files, tokenizer_name="sample", packing="guide", append_eos=False, block_size=BLOCK)


@pytest.fixture
def model():
    return clm_tf.load(clm.Model(name_or_path=None, revision="main", architecture=ARCHITECTURE, seed=0))


@pytest.mark.parametrize(
    "form", [lambda p: p, lambda p: p.folder, lambda p: str(p.folder), lambda p: clm.Prepared.open(p.folder)]
)
def test_prepare_tf_dataset_takes_prepared_data_in_every_form(prepared, model, form):
    dataset = clm_tf.prepare_tf_dataset(model, form(prepared), "validation", batch_size=4, shuffle=False)
    expected = clm.Prepared.open(prepared.folder).blocks("validation", BLOCK)
    features, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    np.testing.assert_array_equal(np.concatenate([part["input_ids"] for part in features]), expected)
    np.testing.assert_array_equal(np.concatenate(labels), expected)
    assert all((part["attention_mask"] == 1).all() for part in features)


def test_prepare_tf_dataset_shuffles_and_drops_the_remainder_as_transformers_does(prepared, model):
    blocks = clm.Prepared.open(prepared.folder).blocks("train", BLOCK)
    dataset = clm_tf.prepare_tf_dataset(model, prepared, batch_size=16)
    found = np.concatenate([features["input_ids"] for features, _ in dataset.as_numpy_iterator()])
    assert len(found) == len(blocks) // 16 * 16
    assert {tuple(row) for row in found.tolist()} <= {tuple(row) for row in blocks.tolist()}
    assert not np.array_equal(found, blocks[: len(found)])


def test_prepare_tf_dataset_takes_the_guides_collator(prepared, model):
    tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)
    tokenizer.pad_token = tokenizer.eos_token
    collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False, return_tensors="tf")
    dataset = clm_tf.prepare_tf_dataset(model, prepared, shuffle=False, collate_fn=collator)
    for features, labels in dataset.as_numpy_iterator():
        np.testing.assert_array_equal(labels == -100, features["input_ids"] == tokenizer.eos_token_id)


def test_prepare_tf_dataset_names_what_is_missing(prepared, model, places):
    stream = clm.prepare(train_file=places / "train.jsonl", tokenizer_name="sample", validation_split_percentage=0)
    with pytest.raises(DataError, match="no split 'validation': it has train"):
        clm_tf.prepare_tf_dataset(model, stream, "validation")
    with pytest.raises(OptionError, match="blocks of any size"):
        clm_tf.prepare_tf_dataset(model, stream.folder)
    with pytest.raises(OptionError, match=f"packed in blocks of {BLOCK}"):
        clm_tf.prepare_tf_dataset(model, prepared, block_size=8)
