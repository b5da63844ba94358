"""Which parameters decay: one rule for every backend."""


def decays(name: str, dimensions: int) -> bool:
    """Whether AdamW's weight decay is for the parameter that PyTorch calls `name`: for matrices that are no biases.

    What has a single dimension is a norm or a bias. Some biases have two, such as XLNet's `r_w_bias`, one a head.
    """
    return dimensions > 1 and not name.endswith("bias")
