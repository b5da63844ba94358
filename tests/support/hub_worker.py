"""Runs commands of clm, one after the other, in a process whose environment was set before anything was imported.

Reads a JSON object a line, with `argv`, the `folder` to work in and the `environment`, and answers each with one: the
exit code and what was printed. Standard error goes to `printed.txt` in the folder.
"""

import contextlib
import io
import json
import os
import signal
import sys

# A shell that starts the tests in the background has them ignore it, and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

answers = sys.stdout
for line in sys.stdin:
    asked = json.loads(line)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.stderr.flush()
    with open("printed.txt", "a") as errors:  # noqa: PTH123
        os.dup2(errors.fileno(), 2)
    from huggingface_hub.utils import http_backoff

    from clm_core import cli

    # Where nobody answers, the Hub's client asks six times for each file, up to 8 s apart.
    http_backoff.__kwdefaults__.update(base_wait_time=0.01, max_wait_time=0.01)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = cli.main(asked["argv"])
    sys.stderr.flush()
    print(json.dumps({"code": code, "out": printed.getvalue()}), file=answers, flush=True)
