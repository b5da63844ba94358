"""Options for generating text."""

from dataclasses import dataclass

from clm_core.config.declaration import option
from clm_core.config.model import DtypeOptions
from clm_core.config.values import at_least, between, positive


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(DtypeOptions):
    """How the next token is chosen."""

    max_new_tokens: int = option(100, "tokens to add to the prompt", check=at_least(1))
    do_sample: bool = option(False, "sample the next token instead of taking the most likely one")
    top_k: int = option(50, "sample from this many of the most likely tokens; 0 for all", check=at_least(0))
    top_p: float = option(
        1.0, "sample from the most likely tokens whose probabilities add up to this", check=between(0, 1, open_low=True)
    )
    temperature: float = option(1.0, "softmax temperature: higher is more varied", check=positive)
    seed: int = option(42, "random seed for sampling", check=between(0, 2**32 - 1))
