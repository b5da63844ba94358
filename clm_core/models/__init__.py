"""What is known of a model without a framework: its tokenizer, its configuration, and its first weights."""
