"""Ops and merge methods, a file a family."""
