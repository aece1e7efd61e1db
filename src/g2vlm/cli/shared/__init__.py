"""What several commands have in common: options of scenes, ranges of numbers, streams and messages."""
