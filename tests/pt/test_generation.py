"""What follows a prompt: the likeliest tokens, or the same drawn ones for the same seed."""

import pytest
import torch

from clm_core.backend import GenerationJob
from clm_core.config import SamplingOptions
from clm_pt import modeling
from clm_pt.generation import generate

PROMPT = (5, 9, 33)


def continue_prompt(model, eos_token_ids=(), **options):
    config = SamplingOptions(**({"max_new_tokens": 8} | options))
    return generate(GenerationJob(model=model, prompt=PROMPT, eos_token_ids=eos_token_ids, config=config))


@pytest.fixture
def lively(new_model, tmp_path):
    """A model with large weights, so that the next token depends on those before."""
    model = modeling.load(new_model())
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20 if weight.ndim == 2 else 1)
    modeling.save(model, tmp_path)
    return new_model(tmp_path)


def test_without_sampling_each_token_is_the_likeliest(lively):
    model, ids = modeling.load(lively).eval(), list(PROMPT)
    for _ in range(8):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert continue_prompt(lively) == ids[3:]
    assert len(set(ids[3:])) > 1


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others(new_model):
    one, again, other = (continue_prompt(new_model(), do_sample=True, top_k=0, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert len(set(one)) > 3


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_k": 0, "top_p": 1e-6}, {"top_k": 0, "temperature": 1e-4}])
def test_drawing_from_the_likeliest_alone_is_greedy(lively, narrow):
    assert continue_prompt(lively, do_sample=True, **narrow) == continue_prompt(lively)


def test_generation_ends_after_the_end_of_sequence_token(lively):
    free = continue_prompt(lively)
    assert continue_prompt(lively, eos_token_ids=(free[2],)) == free[: free.index(free[2]) + 1]
