"""What some of transformers' PyTorch classes get wrong, put right in a loaded model."""

from functools import partial
from typing import Any

import torch
from transformers import GenerationMixin, PreTrainedModel
from transformers.models.reformer.modeling_reformer import ReformerLayer

from clm_core.models.architectures import COUNT_FROM_PADDING, text_part
from clm_core.models.causality import GENERATE_PLAINLY

WITHOUT_MASK = frozenset(("transfo-xl", "xlnet"))
"""The model types that know no attention_mask, or fail in it if they are causal; blocks and prompts have no padding."""

WITHOUT_CACHE = frozenset(("blt", "recurrent_gemma"))
"""Those whose cache fails, or makes a text that is longer than its window another one."""

EAGER = frozenset(("doge",))
"""Those that see later tokens in other kinds of attention, which leave the mask to a kernel that they do not use."""


def repair(model: PreTrainedModel) -> None:
    """Change what a model does, not what is saved of it, except for `use_cache`."""
    kind = model.config.model_type
    if kind in WITHOUT_MASK:
        model.register_forward_pre_hook(_drop_mask, with_kwargs=True)
    if kind in WITHOUT_CACHE:
        model.config.use_cache = False
        model.register_forward_pre_hook(_forget)
    if kind in EAGER:
        model.set_attn_implementation("eager")
    for module in model.modules():
        if isinstance(module, ReformerLayer):
            _draw_seeds(module)


def ask_as_in_training(model: PreTrainedModel) -> None:
    """Give a model in generation what it was given in training, where transformers does otherwise."""
    text = text_part(model.config)
    if getattr(text, "output_router_logits", False):
        text.output_router_logits = False  # Only for the loss, and Mixtral fails in it with a cache (4.57).
    prepare, kind = model.prepare_inputs_for_generation, model.config.model_type
    if kind in GENERATE_PLAINLY:
        model.prepare_inputs_for_generation = _plain_inputs
    elif kind in COUNT_FROM_PADDING:

        def prepared(input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
            inputs = prepare(input_ids, **kwargs)
            inputs.pop("position_ids", None)  # Counted from 0, in transformers 4.57 and 5.
            return inputs

        model.prepare_inputs_for_generation = prepared


def let_generate(model: PreTrainedModel) -> None:
    """Some classes that transformers calls deprecated lost `generate` when it moved out of their parent."""
    if not isinstance(model, GenerationMixin):
        model.__class__ = type(type(model).__name__, (type(model), GenerationMixin), {})


def uses_cache(model: PreTrainedModel) -> bool:
    """Whether a model generates each new token from the cache rather than from the whole text."""
    return model.config.model_type not in GENERATE_PLAINLY | WITHOUT_CACHE


def _drop_mask(model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {name: value for name, value in kwargs.items() if name != "attention_mask"}


def _forget(model: PreTrainedModel, args: Any) -> None:
    """RecurrentGemma of transformers 4.57 begins a batch with the state that the last one left."""
    for module in model.modules():
        if getattr(module, "recurrent_states", None) is not None:
            module.recurrent_states = None


def _draw_seeds(layer: ReformerLayer) -> None:
    """Its seeds, which repeat what is random in the forward pass for the backward pass, would be the machine's own."""
    for part in ("attention", "feed_forward"):
        setattr(layer, f"_init_{part}_seed", partial(_draw_seed, layer, f"{part}_seed"))


def _draw_seed(layer: ReformerLayer, name: str) -> None:
    seed = int(torch.randint(1 << 62, ()))
    setattr(layer, name, seed)
    torch.manual_seed(seed)


def _plain_inputs(input_ids: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> dict[str, Any]:
    return {"input_ids": input_ids, "attention_mask": attention_mask}
