"""Fits a tiny GPT-2 for three epochs with `PushToHubCallback`, and prints what became of it as JSON.

python keras_fit.py '{"output_dir": "out"}'
"""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tf_keras as keras
from transformers import GPT2Config, PushToHubCallback, TFGPT2LMHeadModel

import clm_tf

ids = np.random.default_rng(0).integers(0, 64, (16, 8))
model = TFGPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2))
model.compile(optimizer=keras.optimizers.legacy.Adam(1e-2))
callback = clm_tf.PushToHubCallback(**json.loads(sys.argv[1]))
assert isinstance(callback, PushToHubCallback)


class Follow(keras.callbacks.Callback):
    """Leaves a file where an epoch has ended."""

    def on_epoch_end(self, epoch, logs=None):
        Path(f"epoch-{epoch}").touch()


history = model.fit(
    {"input_ids": ids, "labels": ids}, epochs=3, batch_size=4, callbacks=[callback, Follow()], verbose=0
)
print(json.dumps({"error": callback.error, "loss": model.evaluate({"input_ids": ids, "labels": ids}, verbose=0)}))
if callback.error and "again" in sys.argv:
    sys.stdin.readline()
    print(json.dumps({"url": callback.push()}), flush=True)
