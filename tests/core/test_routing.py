"""Each document goes to one split, or to none for a reason, and the reasons are counted."""

import numpy as np
import pytest

from clm_core.data.routing import Limits, Router
from clm_core.data.sources import Source, Sources
from clm_core.data.tokenization import Slice, Tokens
from clm_core.errors import DataError
from clm_core.shards import Shard

TEXTS = ["a", "", "b", None, " \n", "c", "d"]


def new_router(texts=TEXTS, *, held_out=0, documents=None, tokens=None, shard=None, keeps_blank=False):
    source = Source(name="the texts", fingerprint="", documents=lambda: iter(texts))
    sources = Sources(train=source, validation=None, held_out_percentage=held_out)
    limits = Limits(documents={"train": documents}, tokens={"train": tokens})
    return Router(sources, seed=42, limits=limits, shard=shard or Shard(), keeps_blank=keeps_blank)


def destinations(router):
    return [document.destination for document in router.documents()]


def settle(router, sizes):
    """Settle all documents at once, with so many tokens each."""
    read = list(router.documents())
    lengths = np.array(sizes[: len(read)], np.int64)
    tokens = Tokens(np.zeros(lengths.sum(), np.uint32), lengths)
    return router.settle(Slice([it.origin for it in read], [it.destination for it in read], lengths, tokens))


def test_a_document_without_a_text_goes_to_no_split():
    assert destinations(new_router()) == ["train", "empty", "train", "empty", "empty", "train", "train"]


def test_blank_documents_are_documents_where_they_are_to_be_kept():
    assert destinations(new_router(keeps_blank=True)) == ["train"] * 7


def test_nothing_is_read_beyond_the_limit():
    assert destinations(new_router(documents=2)) == ["train", "empty", "train"]


def test_what_is_beyond_the_limit_of_one_split_is_skipped_while_the_other_is_not_full():
    found = destinations(new_router(["text"] * 20, held_out=50, documents=3))
    assert (found.count("train"), found.count("validation"), found.count("skipped")) == (3, 10, 7)


def test_of_a_shard_every_other_document_is_elsewhere():
    assert destinations(new_router(["text"] * 5, shard=Shard(2, 2))) == ["elsewhere", "train"] * 2 + ["elsewhere"]


def test_what_was_read_ahead_of_the_last_token_that_is_wanted_is_not_counted_as_read():
    router = new_router(["text"] * 4, tokens=5)
    assert settle(router, [3, 3, 3, 3]) == ["train", "train", "unread", "unread"]
    assert (router.counts["train"], router.counts["skipped"]) == (2, 0)


def broken():
    yield "text"
    raise DataError("line 2 is broken")


def test_a_document_that_cannot_be_read_is_an_error_once_it_is_wanted():
    router = new_router(broken())
    with pytest.raises(DataError, match="line 2 is broken"):
        settle(router, [3, 0])


def test_a_document_that_cannot_be_read_is_none_where_it_is_not_wanted():
    assert settle(new_router(broken(), tokens=3), [3, 0]) == ["train", "unread"]


@pytest.mark.parametrize(
    ("texts", "held_out", "message"),
    [([""], 0, "there is no text in the texts: the only document is empty"), (["a"], 50, "of 1 document in the ")],
)
def test_a_split_without_text_is_an_error(texts, held_out, message):
    router = new_router(texts, held_out=held_out)
    settle(router, [1] * len(texts))
    with pytest.raises(DataError, match=message):
        router.check_complete()
