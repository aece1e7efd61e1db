"""How far to trust a length, and lengths of larger things: heights, boxes, planes."""
