"""Questions about rendered scenes, with answers computed from the ground truth."""
