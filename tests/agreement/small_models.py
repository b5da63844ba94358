"""A tiny model of each architecture that both frameworks train."""

from transformers import AutoConfig

from clm_core.backend import Model
from clm_core.initialization import ARCHITECTURES

REFUSED = {"roformer", "xglm", "xlm"}
"""By the TensorFlow backend, which says why."""
KINDS = sorted(ARCHITECTURES - REFUSED)

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "is_decoder": True,
    "causal": True,
    "intermediate_size": 48,
    "n_positions": 64,
    "max_position_embeddings": 64,
    "rotary_dim": 8,
    "dff": 48,
    "num_key_value_heads": 2,
    "ffn_dim": 48,
    "pad_token_id": 1,
}


def new_model(kind: str) -> Model:
    architecture = AutoConfig.for_model(kind, **SIZES)
    return Model(name_or_path=None, revision="main", architecture=architecture, seed=3)
