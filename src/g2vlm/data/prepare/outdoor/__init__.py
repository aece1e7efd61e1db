"""Data sets of streets, landscapes and buildings, one file each."""
