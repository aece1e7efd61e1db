"""Photos and videos of requests: how they are named, fetched, decoded and told apart."""
