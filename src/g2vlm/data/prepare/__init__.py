"""From public data sets, as their authors publish them, to shards: one file for each data set."""
