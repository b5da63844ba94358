"""From Python, a framework says nothing unless it is asked to, and what a person writes goes where it always goes."""

import subprocess
import sys

SCRIPT = """
import logging, os, sys
import clm_core as clm

logging.basicConfig(level=logging.INFO)


class Mine(clm.Progress):
    def say(self, line):
        logging.getLogger("mine").info("said")
        os.write(2, b"my own bytes\\n")


small = {"config_overrides": "n_layer=1,n_embd=16,n_head=2,n_positions=16", "block_size": 16, "max_steps": 1}
small |= {"max_train_samples": 20, "max_eval_samples": 4}
for name in ("pt", "tf", "keras"):
    run = clm.train(backend=name, config="sample", output_dir=name, save_strategy="no", progress=Mine(), **small)
assert clm.generate("Why", backend="keras", model_name_or_path=run.output_dir, max_new_tokens=1).tokens == 1
"""


def test_three_backends_in_one_process_are_quiet_and_a_persons_own_lines_are_there(tmp_path):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert {*done.stderr.splitlines()} == {"INFO:mine:said", "my own bytes"}
