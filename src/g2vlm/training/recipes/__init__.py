"""Recipes: what a training does, stage by stage, as plain data."""
