"""A small base model, two specialists fine-tuned from it, and the recipe that merges them."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RECIPE = FOLDER / "merge.yml"
# Names of the model folders, the base first.
MODELS: tuple[str, ...] = ("base", "sorter", "flipper")

__all__ = ["FOLDER", "MODELS", "RECIPE"]
