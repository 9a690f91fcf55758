"""Plait: merge language models in the memory you have."""

from typing import TYPE_CHECKING, Any

from . import version

if TYPE_CHECKING:
    from .api import MergePlan, MergeResult, plan
    from .reports.comparison import diff
    from .reports.diff_report import DiffReport
    from .reports.reporting import report
    from .reports.run_report import RunReport
    from .reports.verification import VerifyReport, verify

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
    "DiffReport": "reports.diff_report",
    "MergePlan": "api",
    "MergeResult": "api",
    "RunReport": "reports.run_report",
    "VerifyReport": "reports.verification",
    "diff": "reports.comparison",
    "plan": "api",
    "report": "reports.reporting",
    "verify": "reports.verification",
}


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: ``import plait`` alone must not cost the import of torch."""
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
