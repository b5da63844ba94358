"""The TensorFlow tab of the guide, "Causal language modeling", line by line in Keras: clm makes the guide's rows.

python examples/keras_guide.py                   # a small model on the built-in sample, without a network
python examples/keras_guide.py 100 my_awesome_model     # 100 batches an epoch, and each epoch's model to the Hub
"""

import math
import sys

from transformers import AdamWeightDecay, AutoTokenizer, DataCollatorForLanguageModeling, GPT2Config, TFGPT2LMHeadModel

import clm_core as clm
import clm_tf
from clm_core import sample

batches = int(sys.argv[1]) if len(sys.argv) > 1 else -1

# Load, split, flatten, preprocess_function and group_texts, with num_proc=4; or dataset_name, train_file and so on.
lm_dataset = clm.prepare(packing="guide", preprocessing_num_workers=4, append_eos=False, block_size=128)
print("rows", {split: counts["blocks"] for split, counts in lm_dataset.ledger["splits"].items()})

tokenizer = AutoTokenizer.from_pretrained(sample.TOKENIZER)
tokenizer.pad_token = tokenizer.eos_token
data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False, return_tensors="tf")

optimizer = AdamWeightDecay(learning_rate=2e-3, weight_decay_rate=0.01)  # 2e-5 for the guide's pretrained model.

# In the guide: TFAutoModelForCausalLM.from_pretrained("distilbert/distilgpt2"), which clm_tf.load is too.
model = TFGPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=64, n_layer=2, n_head=4))

tf_train_set = clm_tf.prepare_tf_dataset(
    model, lm_dataset, "train", shuffle=True, batch_size=16, collate_fn=data_collator
)
tf_test_set = clm_tf.prepare_tf_dataset(
    model, lm_dataset, "validation", shuffle=False, batch_size=16, collate_fn=data_collator
)

model.compile(optimizer=optimizer)  # No loss argument!

callbacks = []
if len(sys.argv) > 2:
    callbacks = [clm_tf.PushToHubCallback(output_dir=sys.argv[2], tokenizer=tokenizer)]

model.fit(x=tf_train_set.take(batches), validation_data=tf_test_set, epochs=3, callbacks=callbacks, verbose=2)

eval_loss = model.evaluate(tf_test_set, verbose=0)
print(f"Perplexity: {math.exp(eval_loss):.2f}")
