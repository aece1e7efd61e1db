"""Readers of what people know about their photos: camera poses, intrinsics, depth maps, positions, masks."""
