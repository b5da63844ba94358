"""Runs commands of clm, one after the other, in a process whose environment was set before anything was imported.

Reads a JSON list of arguments a line, and answers each with a JSON object: the exit code and what was printed.
"""

import contextlib
import io
import json
import sys

answers = sys.stdout
for line in sys.stdin:
    from clm_core import cli

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = cli.main(json.loads(line))
    print(json.dumps({"code": code, "out": printed.getvalue()}), file=answers, flush=True)
