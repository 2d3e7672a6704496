"""Cloak photos against image-to-video deepfakes."""

__version__ = "0.1.0"
