"""What plain transformers makes of a model: tokens, loss, greedy text and a few steps, with nothing of clm imported.

    python tests/evidence/plain.py REQUEST.json ANSWER.json

The request names a `model`, and what it is to be asked: `documents` to tokenize, `blocks` of token ids to score, a
`prompt` to continue, and `steps`, the blocks of each update; what is absent is not asked.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 4


def main(request: str, answer: str) -> None:
    """Read the request, and write the answer."""
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    Path(answer).write_text(json.dumps(answers(**asked)), encoding="utf-8")


def answers(
    model: str,
    documents: list[str] | None = None,
    blocks: list[list[int]] | None = None,
    prompt: str | None = None,
    new_tokens: int = 0,
    steps: list[list[list[int]]] | None = None,
    learning_rate: float = 0.0,
) -> dict[str, Any]:
    """`tokens`, `loss` in nats per token, `text` after the prompt, and `losses` of the steps."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager", dtype=torch.float32).eval()
    found: dict[str, Any] = {}
    if documents is not None:
        found["tokens"] = [token for text in documents for token in _ended(tokenizer, tokenizer(text)["input_ids"])]
    if blocks is not None:
        found["loss"] = _score(loaded, blocks)
    if prompt is not None:
        found["text"] = _continue(loaded, tokenizer, prompt, new_tokens)
    if steps is not None:
        found["losses"] = _train(loaded, steps, learning_rate)
    return found


def _ended(tokenizer: Any, ids: list[int]) -> list[int]:
    """The ids of a document with an end-of-sequence token after them, unless the tokenizer separates by one itself."""
    return ids if tokenizer.eos_token_id in (ids[0], ids[-1]) else [*ids, tokenizer.eos_token_id]


def _negative_log_likelihoods(model: Any, ids: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
    return -torch.log_softmax(logits.double(), -1).gather(-1, ids[:, 1:, None])


@torch.no_grad()
def _score(model: Any, blocks: list[list[int]]) -> float:
    parts = torch.tensor(blocks).split(BATCH)
    return float(torch.cat([_negative_log_likelihoods(model, part).flatten() for part in parts]).mean())


@torch.no_grad()
def _continue(model: Any, tokenizer: Any, prompt: str, new_tokens: int) -> str:
    """What `generate` writes after the prompt: the decoded whole, less the decoded prompt."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False)[0]

    def text(part: Any) -> str:
        return str(tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return text(made).removeprefix(text(ids[0]))


def _train(model: Any, steps: list[list[list[int]]], learning_rate: float) -> list[float]:
    """AdamW as the Trainer has it by default, at a constant rate and without decay; clipped to a norm of 1."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    losses = []
    for blocks in steps:
        loss = _negative_log_likelihoods(model, torch.tensor(blocks)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:])
