"""Contours on CT: how a net learns to draw, how it draws, and other people's models.

Called as a function, ``oncontour.contour(case)`` draws: see ``oncontour.api.contour``.
"""
