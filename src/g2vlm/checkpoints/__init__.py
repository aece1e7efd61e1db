"""Checkpoint folders: names, strict loading, saving, the hub, random weights."""
