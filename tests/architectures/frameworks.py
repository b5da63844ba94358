"""The backends that are probed, and the logits of their models, each importing its framework when it is asked for."""

import os
from importlib.util import find_spec

import numpy as np
from probe import Probed

from clm_core.backend import Backend, Model


def installed() -> dict[str, Probed]:
    """The backends of clm whose framework is here, by their names, ready to be used."""
    os.environ.setdefault("USE_TF", "AUTO")  # Or the PyTorch backend would keep transformers from using it.
    found = {}
    if find_spec("torch"):
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names

        from clm_pt.backend import PyTorchBackend

        found["pt"] = Probed(_started(PyTorchBackend()), frozenset(names), _pt_logits)
    if find_spec("tensorflow"):
        from transformers.models.auto.modeling_tf_auto import TF_MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names

        from clm_tf.backend import TensorFlowBackend

        found["tf"] = Probed(_started(TensorFlowBackend()), frozenset(names), _tf_logits)
    return found


def _started(backend: Backend) -> Backend:
    backend.start(verbose=False)
    return backend


def _pt_logits(model: Model, ids: np.ndarray) -> np.ndarray:
    import torch

    from clm_pt.modeling import load

    input_ids = torch.from_numpy(ids)
    with torch.no_grad():
        logits = load(model).eval()(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits
    return logits.float().numpy()


def _tf_logits(model: Model, ids: np.ndarray) -> np.ndarray:
    from clm_tf.modeling import load

    return load(model)(ids, training=False, return_dict=True).logits.numpy()
