"""The other side of the service: typed calls over HTTP, without torch or a model."""
