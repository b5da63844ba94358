"""Text to a prepared folder: documents from files and the Hub, tokenized, cut into blocks and kept."""
