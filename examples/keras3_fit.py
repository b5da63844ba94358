"""For people who use Keras 3: a Qwen3-like model from scratch, trained with `fit`, given LoRA, saved and exported.

python examples/keras3_fit.py
"""

import sys

from transformers import AutoTokenizer, Qwen3Config

import clm_core as clm
from clm_core import sample
from clm_core.backend import Model
from clm_tf import keras3

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)

data = clm.Prepared.open(clm.prepare(block_size=128).folder)
train, validation = data.blocks("train", 128), data.blocks("validation", 128)

config = clm.TrainConfig(max_steps=steps, learning_rate=3e-3, warmup_steps=steps // 10)
schedule = clm.Schedule.from_config(config, blocks=len(train))

sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "head_dim": 32}
heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
architecture = Qwen3Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes, **heads)
model = keras3.load(Model(name_or_path=None, revision="main", architecture=architecture, seed=0))


def report(event):
    """Print the loss now and then; the events are those of clm_core.backend."""
    if event.step % 20 == 0 or event.step == steps:
        print(f"step {event.step}: loss {event.loss:.4f}")


model.compile(optimizer=keras3.create_optimizer(schedule, config), loss=keras3.NextToken())
model.fit(keras3.training_dataset(train, schedule), callbacks=[keras3.StepReport(schedule, report)], verbose=0)
score = keras3.score(model, validation)
print(f"validation loss {score.loss:.4f} over {score.tokens:,} tokens")

keras3.save(model, "runs/keras3-fit", tokenizer)  # As transformers reads it.
model.save("runs/keras3-fit.keras")  # As Keras reads it, with the optimizer's state.
model.export("runs/keras3-fit-served", verbose=False)  # A SavedModel, from int32 token ids to logits.

tuned = keras3.load("runs/keras3-fit")
tuned.enable_lora(4)
tuned.compile(optimizer="adamw", loss=keras3.NextToken())
tuned.fit(validation[:16], validation[:16], batch_size=8, verbose=0)
print(f"{sum(variable.value.numpy().size for variable in tuned.trainable_variables):,} numbers trained by LoRA")
