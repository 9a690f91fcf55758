"""Ops and merge methods. Importing this package registers all of them."""
