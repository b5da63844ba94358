"""The output layer of a model, found in the graph of its logits: what it gets, and how the logits follow from that.

transformers' TensorFlow classes have no layer of their own for it that all of them call: most multiply by the table of
the embeddings. A graph computes no more of the logits than is used; where they are computed from this in chunks, all of
them never exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from clm_tf.losses import Output

PRODUCTS = {"MatMul": ("transpose_a", "transpose_b"), "BatchMatMulV2": ("adj_x", "adj_y")}
"""What a product of matrices is called in a graph, and whether its factors are transposed."""

SAME = ("Identity", "Reshape")
"""What leaves the values as they are, in their order."""

SUMS = ("AddV2", "BiasAdd")


@dataclass(frozen=True)
class Head:
    """A product of hidden states and a matrix, and a bias, if there is one."""

    hidden: tf.Tensor
    """What it gets, (..., width), one for each token."""

    matrix: tf.Tensor
    """Float32 in every precision policy: (vocabulary, width), or transposed."""

    transposed: bool

    bias: tf.Tensor | None
    """Float32, (vocabulary,) or (1, vocabulary)."""

    @property
    def parameters(self) -> list[tf.Tensor]:
        """The matrix, and the bias if there is one."""
        return [self.matrix] if self.bias is None else [self.matrix, self.bias]

    def output(self, parameters: Sequence[tf.Tensor] = ()) -> Output:
        """How the logits follow from hidden states, and from those of its `parameters` whose gradients are wanted."""
        return Output(self._logits, self.matrix.shape[1 if self.transposed else 0], parameters)

    def _logits(self, hidden: tf.Tensor) -> tf.Tensor:
        products = tf.matmul(hidden, tf.cast(self.matrix, hidden.dtype), transpose_b=not self.transposed)
        if self.bias is not None:
            products += tf.cast(self.bias, products.dtype)
        return tf.cast(products, tf.float32)


def head_behind(logits: tf.Tensor) -> Head | None:
    """The head of the model that has computed these logits in a graph; None if it is more than a `Head`.

    None outside of a graph too.
    """
    if tf.executing_eagerly():
        return None
    found, bias = _before(logits, SAME), None
    if found.op.type in SUMS:
        found, bias = found.op.inputs
        found, bias = _before(found, SAME), _before(bias, ("Cast", "Identity"))
    if found.op.type not in PRODUCTS:
        return None
    first, second = (found.op.get_attr(name) for name in PRODUCTS[found.op.type])
    hidden, matrix = found.op.inputs
    if matrix.op.type == "Pack" and len(matrix.op.inputs) == 1:  # A table given as a list of one.
        (matrix,) = matrix.op.inputs
    matrix = _before(matrix, ("Cast", "Identity"))
    size = logits.shape[-1]
    is_one = not first and matrix.shape.rank == 2 and matrix.shape[0 if second else 1] == size
    if not is_one or (bias is not None and bias.shape.num_elements() != size):
        return None
    hidden.set_shape((*hidden.shape[:-1], matrix.shape[1 if second else 0]))  # Some classes lose it on the way.
    return Head(hidden, matrix, not second, bias)


def _before(tensor: tf.Tensor, kinds: tuple[str, ...]) -> tf.Tensor:
    """What operations of these kinds made the tensor of."""
    while tensor.op.type in kinds:
        tensor = tensor.op.inputs[0]
    return tensor
