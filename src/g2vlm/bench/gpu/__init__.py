"""Everything that a table about a GPU needs, measured in slices of a few minutes that can be continued."""
