"""Prepared data sets on disk: tar shards of posed frames, and an index that says who sees what."""
