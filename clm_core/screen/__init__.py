"""What a person sees: progress, errors, exit codes, and no noise from frameworks."""
