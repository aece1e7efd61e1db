"""COLMAP's sparse models: cameras, images and points with tracks, and their bundle adjustment."""
