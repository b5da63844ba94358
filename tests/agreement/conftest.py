"""What both frameworks must agree on; these tests need both."""

import os
from importlib.util import find_spec

if not all(map(find_spec, ("torch", "accelerate", "tensorflow", "tf_keras"))):
    collect_ignore_glob = ["test_*.py"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
