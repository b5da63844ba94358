"""The package is light until it is used, and complete."""

import subprocess
import sys

import pytest
from transformers.models.auto.modeling_tf_auto import TF_MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import clm_tf
from clm_tf.backend import MODEL_TYPES


def test_no_framework_is_imported_for_help():
    code = (
        "import sys, clm_tf, clm_tf.backend; assert not {'tensorflow', 'tf_keras', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", clm_tf.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(clm_tf, name).__doc__


def test_it_has_the_types_that_transformers_has_a_tensorflow_class_for():
    assert TF_MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() == MODEL_TYPES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        clm_tf.nonsense  # noqa: B018
