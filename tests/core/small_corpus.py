"""What the core's tests train on: sixty documents, and options that fit them."""

DOCUMENTS = [f"Why is sky number {number} so blue? Because light scatters {number * 7} times." for number in range(60)]
SMALL = {
    "model_type": "gpt2",
    "tokenizer_name": "sample",
    "block_size": 16,
    "per_device_train_batch_size": 4,
    "num_train_epochs": 1,
}
