"""LoRA's adapters: put beside the dense layers of a TensorFlow model, filled, and written in peft's layout."""

from pathlib import Path

from transformers import TFPreTrainedModel

from clm_core.adapters import adapter_weights, place, save_adapter
from clm_core.backend import Model
from clm_tf import weights
from clm_tf.projection import DENSE, adapt, kernel_of

HEADS = {
    **dict.fromkeys(("bert", "rembert", "roformer"), "cls.predictions.decoder"),
    **dict.fromkeys(("camembert", "roberta", "roberta-prelayernorm", "xlm-roberta"), "lm_head.decoder"),
    "xlm": "pred_layer.proj",
    "xlnet": "lm_loss",
}
"""By model type: what PyTorch calls the output layer, where that is not `lm_head`."""


def attach(base: TFPreTrainedModel, model: Model) -> None:
    """Put the layers of the adapter of `model` into its base, which has its weights, and let it train nothing else.

    The adapter adds nothing until `fill` has set its variables.

    Raises:
        OptionError: a new adapter names what there is not, or what it cannot be for.
        ModelError: an adapter that was read does so.
    """
    adapter = model.adapter
    assert adapter is not None
    names = {variable.ref(): name for name, variable in weights.pytorch_names(base).items()}
    dense = {
        names[kernel_of(layer).ref()].removesuffix(".weight"): layer
        for layer in base._flatten_layers()
        if isinstance(layer, DENSE)
    }
    head = HEADS.get(base.config.model_type, "lm_head")
    embeddings = names[base.get_input_embeddings().weights[0].ref()].removesuffix(".weight")
    placement = place(
        model,
        {name: tuple(kernel_of(layer).shape) for name, layer in dense.items()},
        weights.shapes(base),
        output=head,
        tied=(embeddings, head) if base.config.tie_word_embeddings else (),
    )
    weights.freeze(base, {ref for ref, name in names.items() if name not in placement.shapes})
    for name in placement.targets:
        adapt(dense[name], adapter.r, scale=adapter.scale, dropout=adapter.dropout)
    base.adapted = model


def of(model: TFPreTrainedModel) -> Model | None:
    """The adapter of a model, with its base, as it was loaded; None if it has none."""
    found: Model | None = vars(model).get("adapted")
    return found


def fill(model: TFPreTrainedModel, source: Model) -> None:
    """Set the variables of an adapter to what its files have, or to first weights.

    Raises:
        ModelError: the files cannot be read, or do not fit.
    """
    shapes = {name: array.shape for name, array in weights.trained(model).items()}
    weights.assign_slots(model, lambda variable: variable, adapter_weights(source, shapes))


def write(model: TFPreTrainedModel, folder: Path) -> None:
    """Write `adapter_model.safetensors`, adapter_config.json and the base's config.json, and check the weights.

    Raises:
        OutputError: what is on disk differs from the adapter.
    """
    save_adapter(weights.trained(model), model.adapted, folder, generation_config=model.generation_config)
