"""Measures of geometry and of answers: pure functions of predictions and truth."""
