"""Contours on CT: how a net learns to draw, how it draws, and other people's models."""
