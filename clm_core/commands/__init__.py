"""The commands: a file for each, from its options to its result."""
