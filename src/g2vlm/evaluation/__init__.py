"""How good a checkpoint is: metrics, benchmarks, resumable runs, results and reports."""
