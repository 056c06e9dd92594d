import importlib

import pytest

from mmfuse.cli.names import KINDS


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    """Pages are about what is built in: plug-ins of earlier tests in this process, and of a page, are forgotten."""
    for location in KINDS.values():
        module, _, name = location.partition(":")
        registry = getattr(importlib.import_module(module), name)
        registry.names()
        own = {
            name: cls
            for name, cls in registry._classes.items()
            if not cls.__module__.startswith(("mmfuse_plugin_", "test_", "planted_", "block"))
        }
        monkeypatch.setattr(registry, "_classes", own)
        monkeypatch.setattr(registry, "_later", dict(registry._later))
