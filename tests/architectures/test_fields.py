"""A sample of the sweep of fields, and what is made of it, by the logits of transformers' own class."""

import json
from importlib.util import find_spec

import fields
import ignored
import numpy as np
import pytest
from changes import configuration

from clm_core.errors import ModelError
from clm_core.models.causality import make_causal

SERIES = fields.series()
FILE = json.loads(ignored.FILE.read_text(encoding="utf-8"))

PT = {"4.57": ["gpt2", "gemma2"], "5": ["gpt2", "llama"]}[SERIES] if find_spec("torch") else []
CASES = [("pt", kind) for kind in PT] + ([("tf", kind) for kind in ("gpt2", "bert")] if find_spec("tf_keras") else [])


@pytest.mark.skipif(not find_spec("torch"), reason="the reference is a PyTorch class")
@pytest.mark.parametrize(("backend", "model_type"), CASES)
def test_the_file_says_what_the_sweep_finds(backend, model_type, tmp_path):
    (tmp_path / SERIES).mkdir()
    fields._into_file(model_type, tmp_path)
    found = ignored.ignored(tmp_path).get(backend, {}).get(SERIES, {}).get(model_type, {})
    assert found == FILE[backend].get(SERIES, {}).get(model_type, {})


@pytest.mark.skipif(not find_spec("torch"), reason="it is about PyTorch classes")
@pytest.mark.parametrize(
    ("model_type", "field", "value"),
    [
        ("gpt2", "scale_attn_weights", False),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gemma2", "attn_logit_softcapping", 2.0),
        ("falcon", "alibi", True),
        ("llama", "rms_norm_eps", 0.3),
    ],
)
def test_the_pytorch_backend_computes_what_the_configuration_says(model_type, field, value, tmp_path):
    from clm_pt import modeling

    architecture = configuration(model_type, (field,), value)
    make_causal(architecture)
    reference = fields._pt(fields.EAGER)(configuration(model_type, (field,), value))
    model = modeling.load(fields.new(architecture))
    np.testing.assert_allclose(fields.logits_of(model), reference, rtol=0, atol=1e-5 * np.abs(reference).max())


REFUSED = [
    (backend, *case)
    for backend, cases in {
        "tf": [
            ("gpt2", "scale_attn_weights", False),
            ("opt", "enable_bias", False),
            ("ctrl", "layer_norm_epsilon", 0.1),
            ("roberta", "position_embedding_type", "relative_key"),
        ],
        "pt": [("bert", "position_embedding_type", "relative_key")] if SERIES == "5" else [],
    }.items()
    for case in cases
    if find_spec({"tf": "tf_keras", "pt": "torch"}[backend])
]


@pytest.mark.parametrize(("backend", "model_type", "field", "value"), REFUSED)
def test_a_field_that_a_class_does_not_read_is_refused_by_name(backend, model_type, field, value):
    from importlib import import_module

    architecture = configuration(model_type, (field,), value)
    make_causal(architecture)
    with pytest.raises(ModelError, match=f"model type {model_type}: the field {field} of its configuration is"):
        import_module(f"clm_{backend}.modeling").load(fields.new(architecture))
