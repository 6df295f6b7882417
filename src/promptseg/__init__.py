"""Measure, compare and adapt promptable segmentation models on medical images."""

__version__ = "0.1.0.dev0"
