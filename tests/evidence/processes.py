"""Asks a program of this folder something in a process of its own, which its models' memory ends with."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def ask(program: str, request: dict[str, Any], **environment: str) -> dict[str, Any]:
    """The answer of `plain` or `through_clm`.

    Raises:
        RuntimeError: the process failed; with the last of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="clm-evidence-") as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(HERE / f"{program}.py"), str(asked), str(answered)],
            env={**os.environ, "USE_TF": "0" if program == "plain" else "AUTO", **environment},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
        answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
        return answer
