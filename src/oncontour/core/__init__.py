"""The nouns: Geometry, Volume, Contours, Case and remarks; they know no file format and no net."""
