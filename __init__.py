"""Plait: merge language models in the memory you have."""

from typing import TYPE_CHECKING, Any

from . import version

if TYPE_CHECKING:
    from .api import MergePlan, MergeResult, plan

__version__ = version.VERSION
__all__ = ["MergePlan", "MergeResult", "__version__", "plan"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: ``import plait`` alone must not cost the import of torch."""
    if name in ("MergePlan", "MergeResult", "plan"):
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
