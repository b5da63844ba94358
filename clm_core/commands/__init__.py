"""The commands: one file each, from its options to its result."""
