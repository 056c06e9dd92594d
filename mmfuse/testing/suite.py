"""What a conformance suite is: checks by name, each a sentence that tells a defect and its likely cause."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from mmfuse.registry import Registry
from mmfuse.types import MmfuseError


class ConformanceError(AssertionError):
    """A plug-in breaks the protocol of its kind: one sentence that tells the defect and its likely cause."""


class Candidate(NamedTuple):
    """What is under test.

    Attributes:
        name: In the registry.
        options: What the user chose for its constructor.
        cls: The registered class.
    """

    name: str
    options: dict[str, Any]
    cls: Any


class Suite:
    """The checks of one kind of plug-in.

    Args:
        registry: Where those of the kind are found by name.
    """

    def __init__(self, registry: Registry):
        self.registry = registry
        self.checks: dict[str, Callable[..., None]] = {}

    def check(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        """Decorator that makes `_what(candidate)` the check `what`, whose every failure is a `ConformanceError`."""
        title, kind = function.__name__.removeprefix("_"), self.registry.kind

        @functools.wraps(function)
        def run(name: str, **options: Any) -> None:
            self.registry.check_options(name, options)
            try:
                with torch.random.fork_rng(devices=[]):
                    function(Candidate(name, options, self.registry.get(name)))
            except MmfuseError:
                raise
            except ConformanceError as error:
                raise ConformanceError(f"{kind} {name!r} fails {title}: {error}") from None
            except Exception as error:
                first_line = (str(error).splitlines() or [""])[0]
                raise ConformanceError(
                    f"{kind} {name!r} fails {title}: {type(error).__name__}: {first_line}"
                ) from error

        self.checks[title] = run
        return function

    def run(self, name: str, **options: Any) -> None:
        """Run every check on what is registered as `name`, built with `options`.

        Raises:
            ConformanceError: A check fails.
            MmfuseError: Nothing is registered so, or it refuses an option.
        """
        for check in self.checks.values():
            check(name, **options)


def require(condition: Any, sentence: str) -> None:
    """Fail a check with a sentence, unless the condition holds."""
    if not condition:
        raise ConformanceError(sentence)


def require_docstring(cls: type) -> None:
    """Fail a check unless the class says where it is from, how it differs from that, and when to take it."""
    for section in ("Reference:", "Differs:", "Prefer when:"):
        require(section in (cls.__doc__ or ""), f"its docstring has no `{section}`")


def require_named_options(cls: type) -> None:
    """Fail a check if the constructor takes `*args` or `**kwargs`: a typo in a config would pass."""
    loose = [p for p in inspect.signature(cls).parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    require(not loose, f"its constructor takes {loose and loose[0]}, which swallows typos: name the options")
