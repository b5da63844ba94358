"""From text to a prepared folder: documents are read, split, tokenized, packed and cached."""
