"""What is done about a field of a configuration that a class does not read."""

import json

import pytest
from transformers import GPT2Config, LlamaConfig

from clm_core.errors import ModelError
from clm_core.models import ignored_fields
from clm_core.models.ignored_fields import attention


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """A file that says of GPT-2 on a backend `mine` what the real one says of others."""
    ignored = {
        "eager": {"scale_attn_weights": True},
        "refused": {"layer_norm_epsilon": 1e-5, "inner.limit": [0.0, {"__float__": "inf"}]},
    }
    path = tmp_path / "fields.json"
    path.write_text(json.dumps({"mine": {series: {"gpt2": ignored} for series in ("4.57", "5")}}))
    monkeypatch.setattr(ignored_fields, "FILE", path)
    ignored_fields._read.cache_clear()
    yield
    ignored_fields._read.cache_clear()


def test_a_field_that_eager_attention_reads_asks_for_it_and_only_where_it_is_not_the_default():
    assert attention(GPT2Config(), "mine") is None
    assert attention(GPT2Config(scale_attn_weights=False), "mine") == "eager"


def test_a_field_that_is_never_read_is_refused_with_the_value_and_the_way_out():
    with pytest.raises(
        ModelError, match=r"gpt2: the field layer_norm_epsilon .* is 0\.1, .* mine .* set .* to 1e-05 if"
    ):
        attention(GPT2Config(layer_norm_epsilon=0.1), "mine")


@pytest.mark.parametrize("limit", [(0.0, float("inf")), [0.0, {"__float__": "Infinity"}]])
def test_a_nested_field_is_read_however_it_was_written(limit):
    attention(GPT2Config(inner={"limit": limit}), "mine")
    with pytest.raises(ModelError, match=r"inner\.limit"):
        attention(GPT2Config(inner={"limit": [1.0, float("inf")]}), "mine")


@pytest.mark.parametrize(("architecture", "backend"), [(LlamaConfig(), "mine"), (GPT2Config(n_layer=3), "another")])
def test_what_the_file_does_not_name_passes(architecture, backend):
    assert attention(architecture, backend) is None
