"""The guide's own recipe, "Causal language modeling", on either framework: DistilGPT2 on ELI5, from the Hub.

python examples/guide.py tf                 # the guide: three epochs, which need a GPU or some patience
python examples/guide.py tf my-recipe.yaml  # the same walk with other options
"""

import sys

import clm_core as clm

backend = sys.argv[1] if len(sys.argv) > 1 else "pt"
recipe = sys.argv[2] if len(sys.argv) > 2 else "eli5"

# Load, split by question, take the nested column of the answers, tokenize, concatenate, cut into blocks.
prepared = clm.prepare(config=recipe, progress=clm.terminal_progress())
print("ledger", prepared.ledger)

# Train with Trainer or with Keras' fit, and evaluate each epoch. What was prepared above is not prepared again.
run = clm.train(backend=backend, config=recipe, progress=clm.terminal_progress())
print(f"perplexity {run.after['perplexity']:.2f}")

# Generate, as the guide does.
prompt = "Somatic hypermutation allows the immune system to"
sampling = {"do_sample": True, "top_k": 50, "top_p": 0.95, "max_new_tokens": 100}
print(prompt + clm.generate(prompt, backend=backend, model_name_or_path=run.output_dir, **sampling).completion)
