"""Errors that any backend may raise about a model, in the same words."""

from typing import Any

from clm_core.backend import Model
from clm_core.errors import ModelError, first_line


def cannot_build(architecture: Any, error: Exception) -> ModelError:
    """The class of an architecture failed with its configuration."""
    kind = architecture.model_type
    return ModelError(f"transformers cannot build a {kind} that predicts tokens: {first_line(error)}")


def cannot_load(model: Model, error: Exception) -> ModelError:
    """A library failed with weights that could be found and read."""
    return ModelError(f"cannot load the weights of {model.name_or_path}: {first_line(error)}")


def cannot_add_to_loss(asked: str, what: str) -> ModelError:
    """The configuration of a model, in the field `asked`, adds to the loss, and `what` does not compute it."""
    return ModelError(
        f"{asked} in the configuration adds to the loss of the next token, and {what} does not compute that: change it "
        "in config.json, or with --config-overrides"
    )
