"""Benchmarks, one file each: where scenes, truth and questions come from."""
