"""Long sequences: streaming, overlapping pieces, loops, stitching."""
