"""A small base model, two specialists fine-tuned from it, and the recipe that merges them."""

from pathlib import Path

from ...engine.errors import UsageError

FOLDER = Path(__file__).resolve().parent
RECIPE = FOLDER / "merge.yml"
# Names of the model folders, the base first.
MODELS: tuple[str, ...] = ("base", "sorter", "flipper")


def replaces(folder: Path) -> bool:
    """Whether a merge into a folder replaces one by the same recipe, finished or begun.

    Raises UsageError where there is anything else in it: that may be somebody's own model.
    """
    kept = folder / "plait.yml"
    again = kept.is_file() and kept.read_bytes() == RECIPE.read_bytes()
    if folder.is_dir() and any(folder.iterdir()) and not again:
        raise UsageError(f"{folder} is not empty, and not of a demo; name a new folder: plait demo DIR")
    return again


__all__ = ["FOLDER", "MODELS", "RECIPE", "replaces"]
