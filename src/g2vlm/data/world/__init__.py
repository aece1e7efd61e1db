"""The synthetic world: procedural furnished rooms, camera paths through them, and a batched ray caster.

World frame: OpenCV-like, x right, y down, z forward, metres; the floor is the plane y = 0, the ceiling is
at y = -height, and the origin is the middle of the floor. Headings turn about the vertical.
"""
