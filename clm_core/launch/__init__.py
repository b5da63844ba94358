"""Several processes that carry out one command: started by it, or by somebody else's launcher."""
