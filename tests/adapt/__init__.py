"""Deformations, registration and what they carry."""
