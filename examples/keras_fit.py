"""For people who call `model.fit` themselves: clm's blocks, order, optimizer and schedule in a plain Keras workflow.

python examples/keras_fit.py
"""

import sys

from transformers import AutoTokenizer, GPT2Config, TFGPT2LMHeadModel

import clm_core as clm
import clm_tf
from clm_core import sample

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)

data = clm.Prepared.open(clm.prepare(block_size=128).folder)
train, validation = data.blocks("train", 128), data.blocks("validation", 128)

config = clm.TrainConfig(max_steps=steps, learning_rate=3e-3, warmup_steps=steps // 10)
schedule = clm.Schedule.from_config(config, blocks=len(train))

model = TFGPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=128, n_layer=2, n_head=4))
model.compile(optimizer=clm_tf.create_optimizer(schedule, config))  # No loss argument: the model has its own.


def report(event):
    """Print the loss now and then; the events are those of clm_core.backend."""
    if event.step % 20 == 0 or event.step == steps:
        print(f"step {event.step}: loss {event.loss:.4f}")


model.fit(clm_tf.training_dataset(train, schedule), callbacks=[clm_tf.StepReport(schedule, report)], verbose=0)

score = clm_tf.score(model, validation, batch_size=8, report=lambda event: None)
print(f"validation loss {score.loss:.4f} over {score.tokens:,} tokens")

clm_tf.save(model, "runs/keras-fit", tokenizer)  # As PyTorch reads it too; without PyTorch, this reads it back:
model = clm_tf.load("runs/keras-fit")
