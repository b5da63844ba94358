"""What holds for every test: a thread for each worker, since several work at once and what they compute is small."""

import os

# Read when a library is loaded, here and in the processes that tests start.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
