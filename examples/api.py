"""The Python API: train, evaluate and generate.

python examples/api.py pt
"""

import sys

import clm_core as clm

backend = sys.argv[1] if len(sys.argv) > 1 else "pt"
more = {"max_steps": int(sys.argv[2])} if len(sys.argv) > 2 else {}

run = clm.train(backend=backend, config="sample", progress=clm.terminal_progress(), **more)
print("perplexity", run.before["perplexity"], "->", run.after["perplexity"])

score = clm.evaluate(backend=backend, model_name_or_path=run.output_dir)
print("scored again", score.metrics)

print(clm.generate("Good question!", backend=backend, model_name_or_path=run.output_dir, max_new_tokens=40).completion)
