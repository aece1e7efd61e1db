"""The network: configuration and forward passes."""
