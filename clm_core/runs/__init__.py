"""The folder of a run: claimed, and filled with its history, curves and model."""
