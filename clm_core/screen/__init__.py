"""What a person sees: progress, the end of a command, and nothing from the machinery."""
