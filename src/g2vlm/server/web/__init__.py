"""What every request passes: limits, identity, errors, logs, metrics."""
