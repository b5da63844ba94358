"""The Hub: logging in, uploading runs and prepared data, and their cards."""
