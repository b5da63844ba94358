"""The contract, for the backend in examples/, which has no framework."""

from clm_bigram import BigramBackend

from clm_core.testing import BackendContract


class TestBigramBackend(BackendContract):
    backend = BigramBackend()
