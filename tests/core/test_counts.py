"""A count has its noun in the singular or the plural, wherever a line says one."""

import ast
from itertools import pairwise

import pytest
from support.imports import modules

from clm_core.counts import with_noun

NOUNS = {"blocks", "bytes", "checkpoints", "devices", "documents", "embeddings", "fields", "files", "GPUs", "heads"}
NOUNS |= {"layers", "positions", "processes", "rows", "shards", "steps", "tensors", "tokens", "values"}

NOT_ONE = {
    "clm_core.data.routing": {"documents"},
    "clm_core.launch.devices": {"processes", "GPUs"},
    "clm_core.options.effects": {"steps"},
}
"""Where the number is never 1, hardly ever, or none at all: `--eval-strategy steps`."""

FILES = {name: path for name, path in modules("clm_core", "clm_pt", "clm_tf").items() if ".testing" not in name}


@pytest.mark.parametrize(("count", "said"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (2000, "2,000 steps")])
def test_one_is_singular_and_any_other_number_plural(count, said):
    assert with_noun(count, "step") == said


def test_a_noun_may_have_a_plural_of_its_own():
    assert [with_noun(count, "batch", "batches") for count in (1, 3)] == ["1 batch", "3 batches"]


@pytest.mark.parametrize("name", FILES)
def test_no_line_has_a_plural_after_a_number_that_may_be_one(name):
    lines = (node.values for node in ast.walk(ast.parse(FILES[name].read_text())) if isinstance(node, ast.JoinedStr))
    pairs = (pair for values in lines for pair in pairwise(values))
    after = (text.value for value, text in pairs if hasattr(value, "conversion") and hasattr(text, "kind"))
    words = {text.split()[0] for text in after if text.startswith(" ") and text.strip()}
    assert words & NOUNS <= NOT_ONE.get(name, set())
