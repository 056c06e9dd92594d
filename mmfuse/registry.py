"""Names to classes: register by decorator, look up by name, complain with the nearest match."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mmfuse.types import MmfuseError, first_line

_MOST_NAMED = 60
_NAME = re.compile(r"\w[\w-]*")
_PLUGIN = "mmfuse_plugin_"
"""Begins the names of the modules that plug-ins' files are."""


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
        reserved: Constructor arguments that mmfuse sets itself; all the others are options of a config.
        functions: Whether a function, whose signature is read as a constructor's, may stand for a class.
    """

    def __init__(
        self,
        kind: str,
        plural: str | None = None,
        built_in: Iterable[str] = (),
        reserved: Iterable[str] = (),
        functions: bool = False,
    ):
        self.kind, self.plural, self.built_in = kind, plural or f"{kind}s", tuple(built_in)
        self.reserved, self.functions = tuple(reserved), functions
        self._classes: dict[str, type] = {}
        self._later: dict[str, str] = {}
        self._entry_points_loaded = False

    def register(self, name: str) -> Callable[[type], type]:
        """Decorator that registers a class under `name`.

        Raises:
            MmfuseError: The name is none or is taken by another class, or what is registered is no class.
        """
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise MmfuseError(
                f"{name!r:.100} cannot be the name of {self.article}: .register(NAME) takes one, of letters, digits, _ "
                "and -"
            )

        def add(cls: type) -> type:
            if not (inspect.isclass(cls) or self.functions):
                raise MmfuseError(f"{self.kind} {name!r} is no class: {cls!r:.100}")
            if cls.__module__.startswith(_PLUGIN):
                self._load_built_in()
            taken = self._classes.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                by = " and ".join(_module_told(each.__module__) for each in (taken, cls))
                raise MmfuseError(f"{self.kind} {name!r} is registered twice: by {by}; give yours another name")
            if self._later.get(name) not in (None, f"{cls.__module__}:{cls.__qualname__}"):
                raise MmfuseError(f"{self.kind} {name!r} is registered twice: by mmfuse and {cls.__module__}")
            self._classes[name] = cls
            return cls

        return add

    @property
    def article(self) -> str:
        """What is registered, with its article."""
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

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

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """What the constructor of `name` takes of a config."""
        parameters = inspect.signature(self.get(name)).parameters
        return {key: parameter for key, parameter in parameters.items() if key not in self.reserved}

    def check_options(self, name: str, options: dict[str, Any]) -> None:
        """Refuse options that the constructor of `name` does not take, and ask for those that it needs.

        Args:
            name: A registered name.
            options: What the user wrote.

        Raises:
            MmfuseError: An option is unknown, or one without a default is missing; the message tells which.
        """
        legal = self.options(name)
        for key in options:
            if key not in legal:
                raise MmfuseError(
                    f"{self.kind}.{key} is not an option of {self.kind} {name!r}; {nearest(key, ['name', *legal])}"
                )
        for key, parameter in legal.items():
            variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if parameter.default is parameter.empty and key not in options and not variadic:
                raise MmfuseError(f"{self.kind} {name!r} needs the option {key}, which has no default")

    def chosen(self, value: Any, where: str) -> tuple[str, dict[str, Any]]:
        """The name and the options of what a config chooses, checked: `gated`, or `{name: gated, out_dim: 64}`.

        Args:
            value: What stands in the config.
            where: The key it stands at; errors begin with it.

        Raises:
            MmfuseError: It is neither, nothing is registered so, or an option is unknown.
        """
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise MmfuseError(f"{where}: {value!r:.100}: the name of {self.article}, or {{name: ..., options}}")
        name, options = value["name"], {key: given for key, given in value.items() if key != "name"}
        try:
            self.check_options(name, options)
        except MmfuseError as error:
            raise MmfuseError(f"{where}: {error}") from error
        return name, options

    def build(self, name: str, where: str, *given: Any, **options: Any) -> Any:
        """What is registered as `name`, of options that were checked.

        Args:
            name: A registered name.
            where: The key it stands at; an error of a value begins with it.
            *given: What mmfuse sets itself.
            **options: What the user wrote.

        Raises:
            MmfuseError: Its own, or of the TypeError or ValueError by which it refuses a value.
        """
        try:
            return self.get(name)(*given, **options)
        except MmfuseError:
            raise
        except (TypeError, ValueError) as error:
            raise MmfuseError(
                f"{where}: {self.kind} {name!r} cannot be built with {options}: {first_line(error)}"
            ) from error

    def origin(self, name: str) -> str:
        """Where a class comes from: "" for mmfuse's own, else the module or file a user must load."""
        module = self.get(name).__module__
        return "" if module.split(".")[0] == "mmfuse" else module.removeprefix(_PLUGIN)

    def _load_built_in(self) -> None:
        for module in self.built_in:
            importlib.import_module(module)

    def _load_entry_points(self) -> None:
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True
        self._load_built_in()
        for point in importlib.metadata.entry_points(group=f"mmfuse.{self.plural}"):
            loaded = point.load()
            if inspect.isclass(loaded):
                self.register(point.name)(loaded)


def _module_told(module: str) -> str:
    """A module as the user knows it: a plug-in's by its file."""
    return f"{module.removeprefix(_PLUGIN)}.py" if module.startswith(_PLUGIN) else module


_PLUGINS: list[str] = []


def loaded_plugins() -> tuple[str, ...]:
    """The files that `load_plugin` has imported, for a process that begins without them."""
    return tuple(_PLUGINS)


def load_plugin(path: str | Path) -> None:
    """Import a Python file, so that the classes it registers can be used by name.

    Raises:
        MmfuseError: There is no such file, or importing it fails.
    """
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        raise MmfuseError(f"--plugin {path}: not a Python file")
    name = f"{_PLUGIN}{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path.resolve()):
        return
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        said = str(error) if isinstance(error, MmfuseError) else f"{type(error).__name__}: {error}"
        raise MmfuseError(f"--plugin {path}: {said}") from error
    _PLUGINS.append(str(path.resolve()))
