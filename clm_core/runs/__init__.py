"""The folder of a run: chosen and checked, its history, its curves, and files that are whole or not there."""
