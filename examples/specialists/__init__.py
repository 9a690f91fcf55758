"""A small base model, two specialists fine-tuned from it, and the recipe that merges them."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RECIPE = FOLDER / "merge.yml"
# Names of the model folders, the base first.
MODELS: tuple[str, ...] = ("base", "sorter", "flipper")


def merged_before(folder: Path) -> bool:
    """Whether a folder holds a merge by the recipe, finished or begun, and not somebody's own model."""
    kept = folder / "plait.yml"
    return kept.is_file() and kept.read_bytes() == RECIPE.read_bytes()


__all__ = ["FOLDER", "MODELS", "RECIPE", "merged_before"]
