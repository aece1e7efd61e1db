"""Public benchmarks of spatial questions: layout, prompt, reading of answers, published figures of each."""
