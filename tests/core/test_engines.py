"""What tokenizes changes how long it takes, and nothing else."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clm_core as clm
from clm_core.data import engines
from clm_core.data.engines import EngineDiffersError, choose_engine, reference_engine
from clm_core.data.prepared import Prepared
from clm_core.data.tokenization import Tokens


def same(one, other):
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.lengths, other.lengths)


@pytest.fixture(scope="module")
def both_engines(tokenizer):
    return choose_engine(tokenizer, None, print), reference_engine(tokenizer)


@pytest.fixture
def broken(monkeypatch, tokenizer):
    """Put an engine in the place of fastokens that goes wrong from some call on."""

    def install(spoil, calls_until_then):
        reference, calls = reference_engine(tokenizer).encode, iter(range(10**9))

        def encode(texts):
            tokens = reference(texts)
            return tokens if next(calls) < calls_until_then else spoil(tokens)

        monkeypatch.setattr(engines, "_fastokens", lambda *_: encode)

    return install


def wrong(tokens):
    return Tokens(tokens.ids ^ 1, tokens.lengths)


def failing(tokens):
    raise EngineDiffersError("it failed (out of luck)")


def test_fastokens_is_used_where_it_is_installed_and_no_threads_are_counted(tokenizer):
    assert choose_engine(tokenizer, None, print).name.startswith("fastokens ")
    assert choose_engine(tokenizer, 2, print).name.startswith("tokenizers ")


@settings(max_examples=200)
@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_both_engines_make_the_same_tokens_of_any_text(texts, both_engines):
    fast, reference = both_engines
    assert same(fast.encode(texts), reference.encode(texts))


def test_the_files_are_the_same_byte_for_byte_with_either_engine(corpus):
    fast = clm.prepare(train_file=corpus, tokenizer_name="sample", block_size=16, output_dir="fast").folder
    slow = clm.prepare(
        train_file=corpus, tokenizer_name="sample", block_size=16, output_dir="slow", preprocessing_num_workers=1
    ).folder
    assert Prepared.open(fast).manifest.engine != Prepared.open(slow).manifest.engine
    for name in ("train.bin", "train.ends", "validation.bin", "validation.ends"):
        assert (fast / name).read_bytes() == (slow / name).read_bytes()


@pytest.mark.parametrize("spoil", [wrong, failing])
def test_an_engine_that_differs_on_the_hard_texts_is_not_used(tokenizer, broken, spoil):
    lines = []
    broken(spoil, calls_until_then=0)
    assert choose_engine(tokenizer, None, lines.append).name.startswith("tokenizers ")
    assert len(lines) == 1
    assert lines[0].startswith("fastokens is not used for this tokenizer: it")


def test_an_engine_that_cannot_be_imported_is_not_used(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "fastokens.py").write_text("raise ImportError('built for another system')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fastokens", raising=False)
    lines = []
    assert choose_engine(tokenizer, None, lines.append).name.startswith("tokenizers ")
    assert lines == [
        "fastokens is not used for this tokenizer: fastokens does not support it (built for another system)"
    ]


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_long_document_is_compared_too(tokenizer, broken, length):
    broken(wrong, calls_until_then=1)
    engine = choose_engine(tokenizer, None, print)
    with pytest.raises(EngineDiffersError, match="its tokens differ"):
        engine.encode(["a " * length])


@pytest.mark.parametrize("spoil", [wrong, failing])
@pytest.mark.parametrize("calls", [1, 3])
def test_an_engine_that_differs_later_costs_time_and_no_token(corpus, monkeypatch, broken, spoil, calls):
    expected = clm.prepare(train_file=corpus, tokenizer_name="sample", block_size=16, output_dir="expected").folder
    monkeypatch.setattr("clm_core.data.tokenization.SLICE_DOCUMENTS", 2)
    monkeypatch.setattr(engines, "FIRST_DOCUMENTS", 2)
    broken(spoil, calls_until_then=calls)
    found = clm.prepare(train_file=corpus, tokenizer_name="sample", block_size=16, output_dir="found").folder
    assert Prepared.open(found).manifest.engine.startswith("tokenizers ")
    assert (found / "train.bin").read_bytes() == (expected / "train.bin").read_bytes()
