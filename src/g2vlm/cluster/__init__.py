"""Many scenes, on one machine or a cluster of them: what is to do, what is done, and who does it."""
