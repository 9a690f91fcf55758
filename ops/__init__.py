"""Ops and merge methods. Importing this package registers all of them."""

from . import methods, vocabulary

__all__ = ["methods", "vocabulary"]
