"""Which parameters are the matrices of a model's layers: one rule for every backend."""

import re

IN_A_LAYER = re.compile(r"(^|\.)\d+\.(.*\.)?weight$")
"""A name in which a number is: that of the layer, or of an expert."""

OTHERS = re.compile(r"embed|lm_head|(norm|bias|(^|[._])ln_?\w*)\.weight$")
"""What has two dimensions too: tables of embeddings, output layers, norms and biases with weights for each head."""


def is_matrix_of_layer(name: str, dimensions: int) -> bool:
    """Whether the parameter that PyTorch calls `name` multiplies the inputs of a layer, or of an expert, as a matrix.

    Embeddings, output layers and what comes before the first layer or after the last one are none.
    """
    return dimensions == 2 and bool(IN_A_LAYER.search(name)) and not OTHERS.search(name)
