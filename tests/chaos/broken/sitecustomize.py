"""Takes one guard out of a process of the site, named by FLUXGATE_TWIN: for the broken twins alone.

Python imports a module of this name by itself when its folder stands on PYTHONPATH. Nothing in the
shipped code knows of it: each guard is replaced at the moment its module has been imported.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import guards

_chosen = [guards.TWINS[name] for name in os.environ["FLUXGATE_TWIN"].split(",")]
_patched = {module for patches in _chosen for module in patches}


class _Patched(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, name: str) -> None:
        self._loader, self._name = loader, name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for patches in _chosen:
            if self._name in patches:
                patches[self._name](module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _patched:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patched(spec.loader, name)
        return spec


sys.meta_path.insert(0, _Finder())
