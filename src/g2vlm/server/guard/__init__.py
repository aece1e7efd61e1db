"""What stands between the service and the world: limits, keys, addresses, formats, decoding, logs."""
