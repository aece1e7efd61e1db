"""Public benchmarks of depth, points and poses, one file each: layout, protocol and published figures."""
