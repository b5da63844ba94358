"""`--config eli5-guide` on PyTorch is the guide's own script: the same rows and losses, with all that is random."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from guide_script import group_texts
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    set_seed,
)

import clm_core as clm
from clm_core import sample
from clm_core.errors import StoppedError
from clm_core.options import recipes
from clm_pt.guide import GuideTrainer

BLOCK = 16
TEXTS = [f"Why is sky number {n} so blue? {'It is. ' * (n % 5)}{'<|endoftext|>' * (n % 9 == 4)}" for n in range(80)]
"""With special tokens in some, of which the guide's collator makes labels to ignore."""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A model with dropout and its tokenizer, and the two splits in files."""
    monkeypatch.setenv("CLM_CACHE", str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)
    set_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=BLOCK, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for name, texts in (("train", TEXTS[:60]), ("test", TEXTS[60:])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def guide(folder: Path, **arguments) -> tuple[list[float], list[float]]:
    """The guide's script: the loss of each step, and of each evaluation."""
    eli5 = datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_dict({"text": TEXTS[:60]}),
            "test": datasets.Dataset.from_dict({"text": TEXTS[60:]}),
        }
    )
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenized_eli5 = eli5.map(
        lambda examples: tokenizer(examples["text"]),
        batched=True,
        num_proc=2,
        remove_columns=eli5["train"].column_names,
    )
    lm_dataset = tokenized_eli5.map(group_texts, fn_kwargs={"block_size": BLOCK}, batched=True, num_proc=2)
    tokenizer.pad_token = tokenizer.eos_token
    data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False)
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    losses = []

    class Recording(Trainer):
        def training_step(self, *args, **kwargs):
            losses.append(float(loss := super().training_step(*args, **kwargs)))
            return loss

    trainer = Recording(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder / "guide"),
            eval_strategy="epoch",
            learning_rate=2e-3,
            weight_decay=0.01,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=lm_dataset["train"],
        eval_dataset=lm_dataset["test"],
        data_collator=data_collator,
    )
    trainer.train()
    return losses, [line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line]


def recipe(folder: Path, **options):
    """The recipe on the same data, but for the data set and the learning rate, which a tiny model needs larger."""
    own = ("dataset_name", "dataset_split", "text_column")
    lines = (recipes.FOLDER / "eli5-guide.yaml").read_text().splitlines(keepends=True)
    (folder / "recipe.yaml").write_text("".join(line for line in lines if not line.startswith(own)))
    return clm.train(
        backend="pt",
        config=folder / "recipe.yaml",
        **{
            "train_file": folder / "train.jsonl",
            "validation_file": folder / "test.jsonl",
            "model_name_or_path": folder / "model",
            "preprocessing_num_workers": 2,
            "block_size": BLOCK,
            "learning_rate": 2e-3,
            "logging_steps": 1,
            **options,
        },
    )


def values(result, name):
    return [line[name] for line in result.history if name in line]


def test_the_losses_are_those_of_the_guides_script_with_its_shuffling_and_dropout(places):
    losses, evaluations = guide(places)
    found = recipe(places, output_dir=places / "run")
    np.testing.assert_allclose(values(found, "loss"), losses, rtol=0, atol=1e-5)
    np.testing.assert_allclose(values(found, "eval_loss")[1:], evaluations, rtol=0, atol=1e-5)
    assert found.after["tokens_scored"] < found.ledger["splits"]["validation"]["blocks"] * (BLOCK - 1)
    assert len(losses) == 3 * -(-found.ledger["splits"]["train"]["blocks"] // 8)


def test_a_continued_run_goes_on_as_if_it_had_not_been_interrupted(places):
    whole = recipe(places, output_dir=places / "whole", save_total_limit=None)
    first = min((places / "whole").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    again = clm.train(backend="pt", resume_from_checkpoint=first, output_dir=places / "again")
    assert values(again, "loss") == values(whole, "loss")
    assert values(again, "eval_loss") == values(whole, "eval_loss")


def test_a_norm_of_0_clips_no_gradient(places):
    options = {"max_steps": 6, "eval_strategy": "no", "save_strategy": "no"}
    none, high, low = (
        recipe(places, output_dir=places / f"{norm}", max_grad_norm=norm, **options) for norm in (0.0, 1e30, 1e-3)
    )
    assert values(none, "loss") == values(high, "loss") != values(low, "loss")


def test_one_that_was_stopped_in_an_evaluation_draws_the_numbers_of_the_whole(places, monkeypatch):
    def stop(self, *args, **kwargs):
        if self.state.global_step == 5:
            (places / "parts" / "stop").touch()
        return score(self, *args, **kwargs)

    options = {"eval_strategy": "steps", "eval_steps": 5, "save_strategy": "no"}
    whole = recipe(places, output_dir=places / "whole", **options)
    score = GuideTrainer.prediction_step
    with monkeypatch.context() as patched:
        patched.setattr(GuideTrainer, "prediction_step", stop)
        with pytest.raises(StoppedError, match="step 5"):
            recipe(places, output_dir=places / "parts", **options)
    (places / "parts" / "stop").unlink(missing_ok=True)
    again = clm.train(backend="pt", resume_from_checkpoint=places / "parts")
    assert values(again, "loss") == values(whole, "loss")
    assert values(again, "eval_loss") == values(whole, "eval_loss")
