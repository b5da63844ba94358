"""Differences between transformers 4 and 5 in how PyTorch models are made and loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

try:
    from transformers.initialization import no_init_weights
except ImportError:  # In transformers 4.57.
    from transformers.modeling_utils import no_init_weights

__all__ = ["no_init_weights", "not_loaded", "settings_as_loaded"]


def not_loaded(model: PreTrainedModel, report: dict[str, Any]) -> set[str]:
    """The tensors of a model that its files have not, or in another shape, by what `from_pretrained` reports."""
    # transformers 5 gives both shapes beside the name.
    misshapen = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    # transformers 4.57 does not report a tensor that is to be tied to one that is not there.
    empty = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    return {*report["missing_keys"], *misshapen, *empty}


@contextmanager
def settings_as_loaded(model: PreTrainedModel) -> Iterator[None]:
    """Whatever a model says of how it generates is saved as it was loaded; 4 refuses what contradicts itself."""
    settings = model.generation_config
    if settings is not None:  # Some classes of 4 generate nothing.
        model.generation_config = _AsLoaded.from_dict(settings.to_dict())
    try:
        yield
    finally:
        model.generation_config = settings


class _AsLoaded(GenerationConfig):
    def validate(self, strict: bool = False, **more: Any) -> None:
        super().validate(**more)
