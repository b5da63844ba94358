"""File formats: a module for each, from a file to the texts in it."""
