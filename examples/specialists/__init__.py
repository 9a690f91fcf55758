"""A small base model and two specialists."""
