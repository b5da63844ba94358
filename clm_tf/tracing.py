"""Traces what a model computes without AutoGraph, which takes seconds, where its class allows it."""

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf
from transformers import TFPreTrainedModel

CONVERTED = {"opt"}
"""The model types whose classes have an `if` or a `for` that depends on a tensor: AutoGraph makes a graph of it."""

Function = TypeVar("Function", bound=Callable[..., Any])


def traced(model: TFPreTrainedModel, function: Function) -> Function:
    """A function that calls a model within a trace, as it is to be traced."""
    if model.config.model_type in CONVERTED:
        return function
    unconverted: Function = tf.autograph.experimental.do_not_convert(function)
    return unconverted
