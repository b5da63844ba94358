"""Adapters that there are: found in folders and on the Hub, their configuration read with no field ignored."""
