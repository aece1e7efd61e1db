"""Scenes over HTTP: asked for, computed, told about, measured, exported, shown."""
