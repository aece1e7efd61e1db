"""G2VLM: 3-D reconstruction and spatial question answering with one vision-language model."""

__version__ = "0.1.0"
