"""The options of a generation."""

from dataclasses import dataclass

from clm_core.config.declaration import option
from clm_core.config.values import at_least, between, positive


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How the next token is chosen."""

    max_new_tokens: int = option(100, "tokens to add to the prompt", check=at_least(1))
    do_sample: bool = option(False, "draw the next token at random instead of taking the likeliest")
    top_k: int = option(50, "draw from so many of the likeliest tokens; 0 for all", check=at_least(0))
    top_p: float = option(
        1.0, "draw from the likeliest tokens that have this probability together", check=between(0, 1, open_low=True)
    )
    temperature: float = option(1.0, "above 1 more varied, below 1 less", check=positive)
    seed: int = option(42, "of the draws", check=between(0, 2**32 - 1))
