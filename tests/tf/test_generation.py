"""What follows a prompt: the likeliest tokens, or the same drawn ones for the same seed."""

import numpy as np
import pytest

from clm_core.backend import GenerationJob
from clm_core.config import SamplingOptions
from clm_tf import modeling
from clm_tf.generation import generate

PROMPT = (5, 9, 33)


def new_job(model, prompt=PROMPT, eos_token_ids=(), **options):
    config = SamplingOptions(**({"max_new_tokens": 8} | options))
    return GenerationJob(model=model, prompt=prompt, eos_token_ids=eos_token_ids, config=config)


@pytest.fixture
def lively(new_model, tmp_path):
    """A model with large weights, so that the next token depends on those before."""
    model = modeling.load(new_model())
    model.set_weights([array * 20 if array.ndim == 2 else array for array in model.get_weights()])
    modeling.save(model, tmp_path)
    return new_model(name_or_path=str(tmp_path))


def test_without_sampling_each_token_is_the_likeliest(lively):
    model, ids = modeling.load(lively), list(PROMPT)
    for _ in range(8):
        ids.append(int(np.argmax(model(np.array([ids])).logits[0, -1])))
    assert generate(new_job(lively)) == ids[3:]


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others(new_model):
    def draw(seed):
        return generate(new_job(new_model(), do_sample=True, seed=seed, top_k=0, max_new_tokens=20))

    assert draw(1) == draw(1) != draw(2)
    assert len(set(draw(1))) > 5


def test_drawing_from_the_likeliest_alone_is_greedy(lively):
    greedy = generate(new_job(lively))
    assert generate(new_job(lively, do_sample=True, top_k=1)) == greedy
    assert generate(new_job(lively, do_sample=True, top_k=0, top_p=1e-6)) == greedy
    assert generate(new_job(lively, do_sample=True, top_k=0, temperature=1e-4)) == greedy


def test_generation_ends_after_the_end_of_sequence_token(lively):
    free = generate(new_job(lively))
    found = generate(new_job(lively, eos_token_ids=(free[2],)))
    assert found == free[: free.index(free[2]) + 1]


def test_nothing_is_warned_of(lively, caplog):
    generate(new_job(lively, eos_token_ids=(0,)))
    generate(new_job(lively, do_sample=True))
    assert [record for record in caplog.records if "transformers" in record.name and "deprec" not in record.msg] == []
