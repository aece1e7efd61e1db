"""Files of one's own: posed pictures in the layouts of common software."""
