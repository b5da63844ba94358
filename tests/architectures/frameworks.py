"""The backends that are probed, and the logits of their models, each importing its framework when it is asked for."""

import os
from importlib.util import find_spec

import numpy as np
from probe import Logits, Probed

from clm_core.backend import Backend, Model


def installed() -> dict[str, Probed]:
    """The backends of clm whose framework is here, by their names, ready to be used."""
    os.environ.setdefault("USE_TF", "AUTO")  # Or the PyTorch backend would keep transformers from using it.
    found = {}
    if find_spec("torch"):
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names

        from clm_pt.backend import PyTorchBackend

        found["pt"] = Probed(_started(PyTorchBackend()), frozenset(names), _pt_load)
    if find_spec("tensorflow") and find_spec("transformers.models.auto.modeling_tf_auto"):  # Not in transformers 5.
        from transformers.models.auto.modeling_tf_auto import TF_MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names

        from clm_tf.backend import TensorFlowBackend

        found["tf"] = Probed(_started(TensorFlowBackend()), frozenset(names), _tf_load)
    if find_spec("tensorflow"):
        from clm_tf.keras3.backend import KerasBackend
        from clm_tf.keras3.families import MODEL_TYPES

        found["keras"] = Probed(_started(KerasBackend()), MODEL_TYPES, _keras_load)
    return found


def counterpart(name: str, model_type: str, found: dict[str, Probed]) -> Probed | None:
    """The backend that is to open what this one has written: PyTorch; for PyTorch, one that has the model type."""
    others = ("tf", "keras") if name == "pt" else ("pt",)
    return next((found[each] for each in others if each in found and model_type in found[each].model_types), None)


def _started(backend: Backend) -> Backend:
    backend.start(verbose=False)
    return backend


def _pt_load(model: Model) -> Logits:
    import torch

    from clm_pt.modeling import load

    loaded = load(model).eval()

    @torch.no_grad()
    def logits(ids: np.ndarray) -> np.ndarray:
        input_ids = torch.from_numpy(ids)
        return loaded(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits.float().numpy()

    return logits


def _tf_load(model: Model) -> Logits:
    from clm_tf.modeling import load

    loaded = load(model)
    return lambda ids: loaded(ids, training=False, return_dict=True).logits.numpy()


def _keras_load(model: Model) -> Logits:
    from clm_tf.keras3.modeling import load

    loaded = load(model)
    return lambda ids: loaded(ids, training=False).numpy()
