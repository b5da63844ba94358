"""Plain transformers, which clm is compared with here, computes with PyTorch."""

from importlib.util import find_spec

if not all(map(find_spec, ("torch", "accelerate"))):
    collect_ignore_glob = ["test_*.py"]
