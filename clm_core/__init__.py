"""Causal language models: one recipe, two frameworks."""
