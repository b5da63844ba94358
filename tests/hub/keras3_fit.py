"""Fits a tiny Llama of Keras 3 with `PushToHubCallback`, and prints what became of it, and of its repository, as JSON.

python keras3_fit.py '{"output_dir": "out"}'
"""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from transformers import AutoTokenizer, LlamaConfig

from clm_core import sample
from clm_core.backend import Model
from clm_tf import keras3

tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)
sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
architecture = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **sizes)
model = keras3.load(Model(name_or_path=None, revision="main", architecture=architecture, seed=0))
ids = np.random.default_rng(0).integers(0, len(tokenizer), (16, 8))
model.compile(optimizer=keras.optimizers.AdamW(1e-2), loss=keras3.NextToken())
callback = keras3.PushToHubCallback(tokenizer=tokenizer, **json.loads(sys.argv[1]))


class Follow(keras.callbacks.Callback):
    """Leaves a file where an epoch has ended."""

    def on_epoch_end(self, epoch, logs=None):
        Path(f"epoch-{epoch}").touch()


def loss(model):
    """Of what it was trained on."""
    model.compile(loss=keras3.NextToken())
    return model.evaluate(ids, ids, verbose=0)


model.fit(ids, ids, epochs=3, batch_size=4, callbacks=[callback, Follow()], verbose=0)
trained = loss(model)
print(json.dumps({"error": callback.error, "loss": trained}), flush=True)
if callback.error and "again" in sys.argv:
    sys.stdin.readline()
    print(json.dumps({"url": callback.push()}), flush=True)
opened = keras3.load(callback.hub_model_id)
print(json.dumps({"ids": ids.tolist(), "loss": loss(opened)}), flush=True)
if callback.checkpoint:
    going_on = keras3.load(f"{callback.output_dir}/checkpoint/model.keras")
    before = {"updates": int(going_on.optimizer.iterations), "loss": going_on.evaluate(ids, ids, verbose=0)}
    going_on.fit(ids, ids, batch_size=4, verbose=0)
    print(json.dumps({**before, "after": int(going_on.optimizer.iterations)}), flush=True)
    opened.enable_lora(2)
    for other in (opened, keras.Sequential([keras.layers.Embedding(len(tokenizer), 4)])):
        other.compile(optimizer="sgd", loss=keras3.NextToken())
        try:
            other.fit(ids, ids, callbacks=[callback], verbose=0)
        except (TypeError, ValueError) as error:
            print(json.dumps({"refused": str(error)}), flush=True)
