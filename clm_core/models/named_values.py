"""What a field of a configuration can name: an activation, or a kind of attention, of positions or of layers.

transformers looks for most of them only when it builds the model, and takes some that it does not know for another.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from clm_core.errors import OptionError, did_you_mean, similar

ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
    *("gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu"),
    *("relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu"),
)
"""Those of transformers 4.57 and 5, whose own table comes with PyTorch."""

OF_ACTIVATIONS = re.compile(r"(^|_)(act|activation|activation_function)$")
"""What fields are called that name one of them."""

CHOICES: dict[str, Sequence[Sequence[str | None]]] = {
    "afn": [("gelu", "relu", "silu", "swish")],
    "attention_layers": [("global", "local")],
    "attention_type": [("block_sparse", "original_full")],
    "attention_types": [("global", "local")],
    "attn_layers": [("local", "lsh")],
    "attn_type": [("bi", "uni")],
    "block_types": [("attention", "recurrent")],
    "expert_selection_fn": [("sigmoid", "softmax")],
    "norm_type": [("low_precision_layernorm",)],
    "position_embedding_type": [("absolute", "relative_key", "relative_key_query"), ("rope", None)],
    "relative_positional_bias": [("rotary", "simple")],
    "shared_expert_combination_strategy": [("average", "sum")],
    "time_step_init_scheme": [("constant", "random")],
    "topk_method": [("greedy", "group_limited_greedy")],
    "weight_mode": [("fused", "single")],
}
"""By field: the names that a class reads. Of two classes with such a field, the one that reads what is there."""


def check_name(given: str, name: str, old: Any, value: Any) -> None:
    """Make sure that a value is a name that the field knows; `given` is the name that was used for the field.

    A field is known by what it is called and by its `old` value, a text or a list of them; any other can be anything.

    Raises:
        OptionError: the field does not know it; a near one that it knows is named, or all that it knows.
    """
    known = _known(name, old)
    for each in _names(value) if known else ():
        if each not in known:
            allowed = [item or "null" for item in known]
            wrong = "null" if each is None else str(each)
            if near := similar(wrong, allowed, most=2):
                raise OptionError(f"{given} cannot be {wrong}{did_you_mean(*near)}")
            raise OptionError(f"{given} is one of {', '.join(allowed)}, not {wrong}")


def _known(name: str, old: Any) -> Sequence[str | None]:
    here = list(_names(old))
    for choices in CHOICES.get(name, ()):
        if all(each in choices for each in here):
            return choices
    if not OF_ACTIVATIONS.search(name):
        return ()
    return ACTIVATIONS if old in ACTIVATIONS else (*ACTIVATIONS, None) if old is None else ()


def _names(value: Any) -> Iterator[Any]:
    """The names in a value, which may be a list with lists in it; the numbers beside them say how many layers."""
    if not isinstance(value, list | tuple):
        yield value
        return
    for each in value:
        if not isinstance(each, int):
            yield from _names(each)
