"""Merge methods, a file a family. Every module in this folder is imported, so a new method is a new file."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
