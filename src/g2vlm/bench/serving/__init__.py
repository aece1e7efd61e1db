"""What `g2vlm bench serve` measures: a service in a process of its own, asked over HTTP."""
