"""Names to classes: register by decorator, look up by name, complain with the nearest match."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mmfuse.types import MmfuseError

_MOST_NAMED = 60


def nearest(name: str, legal: Iterable[str]) -> str:
    """The sentence that ends an error about a name: the legal ones, and the nearest match if there is one."""
    legal = list(legal)
    close = difflib.get_close_matches(str(name), legal, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    more = [] if len(legal) <= _MOST_NAMED else [f"... ({len(legal)} in all)"]
    return f"legal: {', '.join([*map(str, legal[:_MOST_NAMED]), *more]) or 'nothing'}{hint}"


class Registry:
    """The classes of one kind, by name; third parties add theirs through the entry-point group `mmfuse.<plural>`.

    Args:
        kind: What is registered, in the singular: "fusion", "head".
        plural: Default: with an s.
        built_in: Modules that register mmfuse's own, imported at the first look-up.
    """

    def __init__(self, kind: str, plural: str | None = None, built_in: Iterable[str] = ()):
        self.kind, self.plural, self.built_in = kind, plural or f"{kind}s", tuple(built_in)
        self._classes: dict[str, type] = {}
        self._later: dict[str, str] = {}
        self._entry_points_loaded = False

    def register(self, name: str) -> Callable[[type], type]:
        """Decorator that registers a class under `name`.

        Raises:
            MmfuseError: The name is taken by another class.
        """

        def add(cls: type) -> type:
            taken = self._classes.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise MmfuseError(
                    f"{self.kind} {name!r} is registered twice: by {taken.__module__} and {cls.__module__}"
                )
            if self._later.get(name) not in (None, f"{cls.__module__}:{cls.__qualname__}"):
                raise MmfuseError(f"{self.kind} {name!r} is registered twice: by mmfuse and {cls.__module__}")
            self._classes[name] = cls
            return cls

        return add

    def register_later(self, name: str, location: str) -> None:
        """Register `module:Class`, imported when asked for: of a layer above, or slow to import."""
        self._later[name] = location

    def names(self) -> list[str]:
        """All registered names, sorted, those of installed plug-ins among them."""
        self._load_entry_points()
        return sorted({*self._classes, *self._later})

    def get(self, name: str) -> type:
        """The class registered as `name`.

        Raises:
            MmfuseError: Nothing is; the message tells the legal names and how a plug-in is loaded.
        """
        if name not in self._classes or self.built_in:
            self._load_entry_points()
        if name not in self._classes and name in self._later:
            module, _, attribute = self._later[name].partition(":")
            self.register(name)(getattr(importlib.import_module(module), attribute))
        if name not in self._classes:
            raise MmfuseError(
                f"unknown {self.kind} {name!r}; {nearest(name, self.names())}; "
                "one of your own is loaded with --plugin FILE.py, or an installed package"
            )
        return self._classes[name]

    def options(self, name: str, reserved: Iterable[str] = ()) -> list[str]:
        """What the constructor of `name` takes, but for `reserved`."""
        return [key for key in inspect.signature(self.get(name)).parameters if key not in set(reserved)]

    def check_options(self, name: str, options: dict[str, Any], reserved: Iterable[str] = ()) -> None:
        """Refuse options that the constructor of `name` does not take.

        Args:
            name: A registered name.
            options: What the user wrote.
            reserved: Constructor arguments that the model sets itself.

        Raises:
            MmfuseError: An option is unknown; the message tells the legal ones.
        """
        legal = self.options(name, reserved)
        for key in options:
            if key not in legal:
                raise MmfuseError(
                    f"{self.kind}.{key} is not an option of {self.kind} {name!r}; {nearest(key, ['name', *legal])}"
                )

    def chosen(self, value: Any, where: str, reserved: Iterable[str] = ()) -> tuple[str, dict[str, Any]]:
        """The name and the options of what a config chooses, checked: `gated`, or `{name: gated, out_dim: 64}`.

        Args:
            value: What stands in the config.
            where: The key it stands at; errors begin with it.
            reserved: Constructor arguments that mmfuse sets itself.

        Raises:
            MmfuseError: It is neither, nothing is registered so, or an option is unknown.
        """
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            article = "an" if self.kind[0] in "aeiou" else "a"
            raise MmfuseError(f"{where}: {value!r:.100}: the name of {article} {self.kind}, or {{name: ..., options}}")
        name, options = value["name"], {key: given for key, given in value.items() if key != "name"}
        try:
            self.check_options(name, options, reserved)
        except MmfuseError as error:
            raise MmfuseError(f"{where}: {error}") from error
        return name, options

    def origin(self, name: str) -> str:
        """Where a class comes from: "" for mmfuse's own, else the module or file a user must load."""
        module = self.get(name).__module__
        return "" if module.split(".")[0] == "mmfuse" else module.removeprefix("mmfuse_plugin_")

    def _load_entry_points(self) -> None:
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True
        for module in self.built_in:
            importlib.import_module(module)
        for point in importlib.metadata.entry_points(group=f"mmfuse.{self.plural}"):
            loaded = point.load()
            if inspect.isclass(loaded):
                self.register(point.name)(loaded)


def load_plugin(path: str | Path) -> None:
    """Import a Python file, so that the classes it registers can be used by name.

    Raises:
        MmfuseError: There is no such file, or importing it fails.
    """
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        raise MmfuseError(f"--plugin {path}: not a Python file")
    name = f"mmfuse_plugin_{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path.resolve()):
        return
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise MmfuseError(f"--plugin {path}: {type(error).__name__}: {error}") from error
