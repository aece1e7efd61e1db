"""Data sets of rooms, one file each."""
