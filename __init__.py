"""Plait: merge language models in the memory you have."""

from typing import TYPE_CHECKING, Any

from . import version

if TYPE_CHECKING:
    from .api import MergePlan, MergeResult, plan
    from .comparison import diff
    from .diff_report import DiffReport
    from .reporting import report
    from .run_report import RunReport
    from .verification import VerifyReport, verify

__version__ = version.VERSION
__all__ = [
    "DiffReport",
    "MergePlan",
    "MergeResult",
    "RunReport",
    "VerifyReport",
    "__version__",
    "diff",
    "plan",
    "report",
    "verify",
]

_MODULES = {
    "DiffReport": "diff_report",
    "MergePlan": "api",
    "MergeResult": "api",
    "RunReport": "run_report",
    "VerifyReport": "verification",
    "diff": "comparison",
    "plan": "api",
    "report": "reporting",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: ``import plait`` alone must not cost the import of torch."""
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
