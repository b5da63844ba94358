"""`clm parity`: two backends compared, each in its own process."""
