"""The photographic world: rooms of triangles with photographic textures, light, shadows and faulty cameras.

Its files are fetched by `scripts/collect_assets.py` and read by `library`; without them the same rooms are
built of primitives with procedural textures. Axes and units are those of `g2vlm.data.world`.
"""
