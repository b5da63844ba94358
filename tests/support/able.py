"""A backend that supports every option, for tests of how options are resolved, with no framework installed."""

from typing import ClassVar

from clm_bigram import BigramBackend


class Able(BigramBackend):
    """Like the toy backend; nothing trains with it."""

    unsupported: ClassVar = {}
