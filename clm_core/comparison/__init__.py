"""The comparison of two backends, each in a process of its own."""
