"""Plait: merge language models in the memory you have."""

from . import version

__version__ = version.VERSION
__all__ = ["__version__"]
