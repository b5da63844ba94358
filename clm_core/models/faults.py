"""Errors that any backend may raise about a model, in the same words."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clm_core.backend import Model
from clm_core.errors import BackendError, ModelError, first_line


def cannot_build(architecture: Any, error: Exception) -> ModelError:
    """The class of an architecture failed with its configuration."""
    kind = architecture.model_type
    return ModelError(f"transformers cannot build a {kind} that predicts tokens: {first_line(error)}")


def cannot_load(model: Model, error: Exception) -> ModelError:
    """A library failed with weights that could be found and read."""
    return ModelError(f"cannot load the weights of {model.name_or_path}: {first_line(error)}")


def check_finite(model: Model, name: str, *extremes: float) -> None:
    """Make sure that a weight that was loaded is finite, by its smallest and its largest number.

    Each is NaN where one of the numbers is. What is no weight, such as a mask, may be infinite, and does not come here.

    Raises:
        ModelError: it is not.
    """
    if wrong := [value for value in extremes if not math.isfinite(value)]:
        raise ModelError(
            f"{model.name_or_path}: the weight {name} has the value {wrong[0]}: the training that wrote it diverged, "
            "or the file was damaged; use an earlier checkpoint, or another model"
        )


def cannot_add_to_loss(asked: str, what: str) -> ModelError:
    """The configuration of a model, in the field `asked`, adds to the loss, and `what` does not compute it."""
    return ModelError(
        f"{asked} in the configuration adds to the loss of the next token, and {what} does not compute that: change it "
        "in config.json, or with --config-overrides"
    )


@contextmanager
def usable(package: str) -> Iterator[None]:
    """Import a package for adapters, or call it where it looks at others, which it may find to be missing or too old.

    Raises:
        BackendError: it cannot be used.
    """
    try:
        yield
    except ImportError as error:
        said = first_line(error).rstrip(".")
        raise BackendError(
            f"adapters need {package}, which cannot be used here: {said}: install another version of one of them"
        ) from error
