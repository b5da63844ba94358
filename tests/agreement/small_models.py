"""A tiny model of each architecture that both frameworks train."""

from shrink import shrink
from transformers.models.auto.modeling_tf_auto import TF_MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from clm_core.backend import Model
from clm_core.models.causality import make_causal

REFUSED = frozenset({"transfo-xl"})
"""By both backends, which say why."""
KINDS = sorted(TF_MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - REFUSED)


def new_model(kind: str) -> Model:
    architecture = shrink(kind)
    make_causal(architecture)
    return Model(name_or_path=None, revision="main", architecture=architecture, seed=3)
