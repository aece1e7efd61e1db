"""How fast and how lean: what `g2vlm bench` measures, and the machine's own limits beside it."""
