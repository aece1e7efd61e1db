"""Whether the cameras and depth of a data set belong to its pictures, and if not, what went wrong."""
