"""Layers of low rank: two or three thin ones in the place of a wide one."""
