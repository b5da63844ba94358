"""Times a batch of 8 blocks of 1,024 tokens, from the memory map to the framework's tensors, against the guide's way.

    nox -s bench -- loaders [rounds]

The guide's way is its data set of lists, with its padding collator: `DataLoader` on PyTorch, `prepare_tf_dataset` on
TensorFlow. Each runs once a round, in turn; the table has medians over batches, and then over rounds.
"""

import os
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    GPT2Config,
    TFGPT2LMHeadModel,
)

from clm_core import sample
from clm_core.config import TrainConfig
from clm_core.schedule import Schedule

BLOCKS, BLOCK, BATCH, WARM = 2_000, 1024, 8, 20


def main(rounds: int) -> None:
    """Build the blocks, run every loader in turn, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        loaders = build(Path(folder))
        found = {name: [] for name in loaders}
        for _ in range(rounds):
            for name, loader in loaders.items():
                found[name].append(measure(loader()))
    print("| loader | ms a batch |\n| --- | --- |")
    for name, times in found.items():
        print(f"| {name} | {1e3 * statistics.median(times):.3f} |")


def build(folder: Path):
    """The loaders, each as something that gives its batches."""
    from torch.utils.data import DataLoader

    from clm_pt.datasets import BlockDataset, EpochBatches, collate
    from clm_tf import training_dataset

    ids = np.random.default_rng(0).integers(0, 2048, (BLOCKS, BLOCK)).astype(np.uint16)
    ids.tofile(folder / "blocks.bin")
    blocks = np.memmap(folder / "blocks.bin", np.uint16, "r").reshape(BLOCKS, BLOCK)
    schedule = Schedule.from_config(TrainConfig(block_size=BLOCK, num_train_epochs=1), blocks=BLOCKS)

    tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)
    tokenizer.pad_token = tokenizer.eos_token
    rows = ids.astype(np.int64).tolist()
    lists = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * BLOCK] * BLOCKS, "labels": rows})
    model = TFGPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=2048))
    collators = {
        kind: DataCollatorForLanguageModeling(tokenizer, mlm=False, return_tensors=kind) for kind in ("pt", "tf")
    }
    return {
        "guide, PyTorch": lambda: DataLoader(lists, batch_size=BATCH, shuffle=True, collate_fn=collators["pt"]),
        "clm, PyTorch": lambda: DataLoader(
            BlockDataset(blocks), batch_sampler=EpochBatches(schedule), collate_fn=collate
        ),
        "guide, TensorFlow": lambda: model.prepare_tf_dataset(
            lists, shuffle=True, batch_size=BATCH, collate_fn=collators["tf"]
        ),
        "clm, TensorFlow": lambda: training_dataset(blocks, schedule),
    }


def measure(loader) -> float:
    """The median time of a batch, after the first few, in seconds."""
    batches = islice(iter(loader), WARM, None)
    next(batches)
    times, start = [], time.perf_counter()
    for _ in batches:
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    return statistics.median(times)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
