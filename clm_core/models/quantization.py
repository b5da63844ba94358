"""Quantized weights: formats that a backend cannot read are errors, not numbers taken as they are."""

from collections.abc import Collection, Iterable
from typing import Any

from clm_core.backend import Model
from clm_core.errors import ModelError

PLAIN = ("F16", "BF16", "F32", "F64")
"""The number types of plain weights, by their names in safetensors."""


def check_quantization(architecture: Any, backend: str | None = None, methods: Collection[str] = ()) -> None:
    """Make sure that the weights of a model are not quantized, or by a method that the backend can read.

    Raises:
        ModelError: they are, as `quantization_config` says; the method is named.
    """
    config = getattr(architecture, "quantization_config", None)
    if config is None:
        return
    who = f"backend {backend}" if backend else "this backend"
    method = (config if isinstance(config, dict) else config.to_dict()).get("quant_method")
    if method not in methods:
        raise ModelError(
            f"model type {architecture.model_type}: its quantization_config says that its weights are quantized "
            f"(quant_method {str(getattr(method, 'value', method))!r}), which {who} cannot read: use the "
            "original model, or remove quantization_config from config.json if it is wrong"
        )


def check_types(model: Model, types: Iterable[tuple[str, str]]) -> None:
    """Make sure that weights without a quantization_config are of a plain number type.

    `types` has the name of each weight and the type of its numbers in the file.

    Raises:
        ModelError: one is of bytes or other integers, which mean something only with scales.
    """
    if getattr(model.architecture, "quantization_config", None) is not None:
        return
    for name, kind in types:
        if kind not in PLAIN:
            raise ModelError(
                f"{model.name_or_path}: {name} has type {kind}, as in a quantized model, but config.json has no "
                "quantization_config that says how to read it: use the original model"
            )
