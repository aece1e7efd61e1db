"""Data sets of single objects and tables, one file each."""
