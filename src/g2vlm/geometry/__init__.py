"""Pure mathematics on rotations, poses, cameras, points and alignment: nothing learned or read from disk."""
