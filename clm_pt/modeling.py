"""PyTorch models: loaded whole or not at all, initialized from a seed, saved and read back."""

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedModel, set_seed
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from clm_core.backend import Model
from clm_core.config import DtypeOptions
from clm_core.durable import sync
from clm_core.errors import ModelError, OutputError
from clm_core.models.causality import check_causal
from clm_core.models.configurations import existing_model
from clm_core.models.faults import cannot_build, cannot_load
from clm_core.models.first_weights import draws_all, first_weight
from clm_core.models.ignored_fields import attention
from clm_core.models.model_folder import complete
from clm_core.models.quantization import check_quantization, check_types
from clm_core.models.unused_weights import OUTPUT
from clm_core.models.weight_files import StoredWeights, check_whole
from clm_core.weights import not_written
from clm_pt import adapters
from clm_pt.masters import round_weights
from clm_pt.repairs import repair
from clm_pt.series import no_init_weights, not_loaded, settings_as_loaded
from clm_pt.weights import check_all_finite, check_all_used, grow

METHODS = {method.removesuffix("_4bit").removesuffix("_8bit") for method in AUTO_QUANTIZER_MAPPING}
"""The quantization methods that transformers reads; for any other it takes the numbers as they are."""


def load(model: Model | str | os.PathLike[str]) -> PreTrainedModel:
    """The model, float32, on the CPU.

    From a folder or a name on the Hub, `load("runs/products")`, or from a `Model`, with a revision and a seed.

    Raises:
        ModelError: transformers has no causal language model of this architecture, its class ignores a field, or the
            weights cannot be read, are incomplete, not finite, or belong to another architecture.
    """
    return load_as(existing_model(model), torch.float32)


def load_as(model: Model, dtype: torch.dtype) -> PreTrainedModel:
    """The same with weights of another type, which are never all there in float32; those of an adapter are float32."""
    set_seed(model.seed)
    check_quantization(model.architecture, "pt", METHODS)
    if needed := attention(model.architecture, "pt"):
        model.architecture._attn_implementation = needed
    loaded = _new(model) if model.name_or_path is None else _from_pretrained(model, dtype)
    if model.name_or_path is not None:
        check_all_finite(model, loaded)
    if type(loaded.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:  # It is a part of a larger model.
        raise ModelError(
            f"model type {model.architecture.model_type}: transformers turns it into a {loaded.config.model_type}, "
            "for which it has no model, so it could not be opened again once saved"
        )
    repair(loaded)
    with precision(loaded.dtype == torch.bfloat16):
        _check_causal(loaded)
    if model.adapter:
        adapters.attach(loaded, model)
    return loaded


def without_weights(architecture: Any) -> PreTrainedModel:
    """The model of an architecture, whose parameters have names and shapes and no memory.

    Raises:
        ModelError: transformers cannot build it, or not without weights.
    """
    with init_empty_weights():
        model = _from_config(copy.deepcopy(architecture))
    model.tie_weights()  # Within the block, what is tied has come apart.
    return model


def save(
    model: PreTrainedModel,
    folder: str | os.PathLike[str],
    tokenizer: Any = None,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write model.safetensors, config.json and generation_config.json, and make sure that they can be read back.

    The folder is created if missing. The tokenizer is saved with the model, if one is given. `weights` are those of a
    model that is sharded, by their names in it. Of a model with an adapter, the adapter alone is written.

    Raises:
        OutputError: what was read back differs from what was written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_pretrained(model, folder, weights)
    sync(folder)
    if adapters.of(model) is None:
        _check_written(model, folder, weights)
    if tokenizer is not None:
        complete(folder, tokenizer, model.config)


def save_pretrained(model: PreTrainedModel, folder: Path, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Transformers' own, of these `weights` where the model is sharded; of a model with an adapter, the adapter."""
    if adapters.of(model):
        adapters.save(model, folder, weights)
        return
    with settings_as_loaded(model):
        if weights is None:
            model.save_pretrained(folder)
            return
        sharded = type(model)
        model.__class__ = sharded.__bases__[1]  # transformers goes by its name, to which FSDP2 adds its own.
        try:
            model.save_pretrained(folder, state_dict=dict(weights))  # transformers 5 empties what it is given.
        finally:
            model.__class__ = sharded


def on_device(model: PreTrainedModel) -> PreTrainedModel:
    """The model on the accelerator, if there is one, ready to score and generate."""
    return model.to(_accelerator()).eval()


def load_to_use(model: Model, options: DtypeOptions) -> PreTrainedModel:
    """The model on the accelerator, if there is one, with weights as the options say, to score and generate.

    Raises:
        ModelError: as of `load`.
    """
    if not options.has_bfloat16_weights:
        return on_device(load(model))
    loaded = load_as(existing_model(model), torch.bfloat16)
    round_weights(loaded)  # Those of an adapter.
    return on_device(loaded)


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Within it, the model drops nothing out and keeps no gradients; after it, it is in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def precision(bf16: bool) -> Iterator[None]:
    """Compute in bfloat16 if `bf16`, by PyTorch's autocast, else in float32; weights stay of the type that they are."""
    with ExitStack() as entered:
        for device in {"cpu", _accelerator()} if bf16 else ():
            entered.enter_context(torch.autocast(device, torch.bfloat16))
        yield


def _accelerator() -> str:
    """The type of device that models are placed on; a build for an accelerator names it even if there is none."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device.type if device else "cpu"


def _check_written(model: PreTrainedModel, folder: Path, weights: Mapping[str, torch.Tensor] | None) -> None:
    # Read as anyone would, because transformers may write other names than the model's, and tied tensors only once.
    architecture = copy.deepcopy(model.config)
    try:
        found = _from_pretrained(Model(name_or_path=str(folder), revision="main", architecture=architecture, seed=0))
    except ModelError as error:
        raise OutputError(f"the weights in {folder} were not written correctly: {error}") from None
    read = found.state_dict()
    written = model.state_dict() if weights is None else weights
    wrong = [name for name, tensor in written.items() if not _equal(read[name], tensor)]
    if wrong:
        raise not_written(folder, wrong[0])


def _check_causal(model: PreTrainedModel) -> None:
    def logits(ids: np.ndarray) -> np.ndarray:
        torch.manual_seed(0)  # For attention that hashes at random.
        input_ids = torch.from_numpy(ids)
        return model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits.float().numpy()

    with inference(model), torch.random.fork_rng(devices=[]):
        check_causal(logits, model.config, rounded=model.dtype == torch.bfloat16)


def _new(model: Model) -> PreTrainedModel:
    with no_init_weights() if draws_all(model.architecture) else nullcontext():
        new = _from_config(model.architecture)
    new.tie_weights()  # It is left out where nothing is drawn.
    with torch.no_grad():
        for name, parameter in new.named_parameters():
            drawn = first_weight(name, tuple(parameter.shape), model.architecture, seed=model.seed)
            if drawn is not None:
                parameter.copy_(torch.from_numpy(drawn))
    return new


def _from_config(architecture: Any) -> PreTrainedModel:
    try:
        mapped = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(architecture), None)
        if mapped and mapped.config_class is architecture.sub_configs.get("text_config"):
            return mapped(architecture.text_config)  # As from_pretrained does by itself.
        return AutoModelForCausalLM.from_config(architecture, trust_remote_code=False, dtype=torch.float32)
    except Exception as error:  # A class may raise anything if numbers do not fit together.
        raise cannot_build(architecture, error) from error


def _from_pretrained(model: Model, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    # Before transformers looks: without a safetensors file, it has the Hub's bot make one of the pickle.
    stored = StoredWeights.of(model)
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            model.name_or_path,
            revision=model.revision,
            config=model.architecture,
            dtype=dtype,
            use_safetensors=True,  # Third-party pickles can run arbitrary code.
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # They are in the report, by their names, and rejected below.
            output_loading_info=True,
        )
    except Exception as error:  # As above, and whatever network and file may hold.
        names = dict(without_weights(model.architecture).named_parameters(remove_duplicate=False)).keys()
        check_types(model, ((name, kind) for name, kind in stored.types.items() if name in names))
        if model.vocabulary and any(OUTPUT.search(name) for name in stored):
            raise ModelError(
                f"{model.name_or_path}: resize_embeddings: its files have an output layer beside the embeddings, which "
                "this version of transformers cannot read into a larger model: if it is a copy, save the model anew "
                "by from_pretrained and save_pretrained, which leave it out; else use --backend keras"
            ) from error
        raise cannot_load(model, error) from error
    check_whole(model, not_loaded(loaded, report) - grow(model, stored, loaded))
    check_all_used(model, stored, loaded, report["unexpected_keys"])
    return loaded


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether they are the same numbers; not-a-number equals itself."""
    same_kind = (one.shape, one.dtype) == (other.shape, other.dtype)
    return same_kind and torch.allclose(one.cpu(), other.cpu(), rtol=0.0, atol=0.0, equal_nan=True)
