"""Ops and merge methods. Importing this package registers all of them."""

from . import methods

__all__ = ["methods"]
