"""Retrains the sample's tokenizer: `python -m clm_core.sample.train_tokenizer`.

The result is shipped, so that the ids of the sample do not depend on the version of `tokenizers`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from clm_core.sample import TOKENIZER, rows

ENTRIES = 2048
END = "<|endoftext|>"
PAD = "<|pad|>"
NEVER = "À"
"""How a byte-level BPE writes the byte 0xC0, which UTF-8 never has: PAD takes its entry, and no other id changes."""
CONFIG = {
    "add_prefix_space": False,
    "bos_token": END,
    "clean_up_tokenization_spaces": False,
    "eos_token": END,
    "model_max_length": 1024,
    "pad_token": PAD,
    "padding_side": "left",  # So that all prompts of a batch end where the model continues them.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": END,
}


def train() -> Tokenizer:
    """A byte-level BPE that is trained on the titles and answers of all rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=ENTRIES, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return _with_pad(tokenizer)


def write(folder: Path) -> None:
    """Both files that `AutoTokenizer.from_pretrained` needs."""
    folder.mkdir(exist_ok=True)
    train().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")


def _with_pad(tokenizer: Tokenizer) -> Tokenizer:
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    vocabulary[PAD] = vocabulary.pop(NEVER)
    padded: Tokenizer = Tokenizer.from_str(json.dumps(state))
    padded.add_special_tokens([PAD])
    return padded


def _texts() -> Iterator[str]:
    for row in rows():
        yield row["title"]
        yield from row["answers"]["text"]


if __name__ == "__main__":
    write(TOKENIZER)
