"""The Hub: who you are there, and making a repository equal to what is on disk."""
