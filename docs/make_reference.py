"""`make reference`: the pages of docs/reference/, from the schemas, the registries and the command line.

Nothing on these pages is written by hand, and `tests/docs` fails where they are not what this writes.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from mmfuse import cli
from mmfuse.benchmarking.config import BenchmarkConfig
from mmfuse.cli.names import KINDS
from mmfuse.config import Config
from mmfuse.config.parsing import nested_in
from mmfuse.data.tables.manifest import Manifest
from mmfuse.tasks import TASKS

FOLDER = Path(__file__).parent / "reference"
_NOT_WRITTEN = {"source", "sha256", "options"}
"""Fields that mmfuse sets when a manifest is read."""
_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Any: "see meaning",
    dict: "mapping",
    list: "list",
}
_PLACES = {str: "TEXT", int: "N", float: "X", Path: "PATH"}
"""What stands for an option's value, by its type."""
_ABOUT = {
    "fusions": "`fusion: {name: NAME, ...}` in a config; `strategies` of a benchmark",
    "analyses": "`evaluation.analyses` in a config; `mmfuse evaluate --analyses`",
    "adapters": "`text_encoder.adapter` and `image_encoder.adapter` in a config",
    "towers": "`text_encoder.tower` and `image_encoder.tower` in a config, their options under `options`",
    "tasks": "`type` of a task in a manifest, the options beside it",
    "heads": "`tasks.NAME.head` in a config; the head has the name of the task's type",
    "optimizers": "`training.optimizer` in a config",
    "objectives": "`training.objectives` in a config",
    "orders": "`training.order` in a config",
    "methods": "`training.method` in a config",
    "metrics": "`tasks.NAME.metrics` in a config; `mmfuse evaluate --metrics`",
    "report_metrics": "`report_metrics` of a captioning task in a manifest",
}
"""Where each kind is chosen; a kind that is not here is a gap that the test finds."""


def pages() -> dict[str, str]:
    """By file name, what each page says."""
    return {
        "manifest.md": _page(
            "Manifest",
            "Every key of a data manifest. [Your data](../your_data.md) and [tables](../tables.md) show them in use; "
            "keys of a kind of task are under [options](options.md#tasks).",
            _schema(Manifest, "Top level"),
        ),
        "config.md": _page(
            "Config of a run",
            "Every key of the YAML file of `mmfuse train`; on the command line a key is overridden by its dotted "
            "name, as in `training.epochs=3`. `mmfuse config` prints the same.",
            _schema(Config, "Top level"),
        ),
        "benchmark.md": _page(
            "Config of a benchmark",
            "Every key of the YAML file of `mmfuse benchmark` that a run's does not have; of a run's, all but `seed` "
            "and `fusion` are legal too ([config](config.md)). [Benchmark](../benchmark.md) says what they are for.",
            _schema(BenchmarkConfig, "Top level", without=_shared(BenchmarkConfig, Config)),
        ),
        "options.md": _page(
            "What is chosen by name",
            "Fusions, metrics and all else that `mmfuse list` knows, with the options of each. "
            "[Extend](../extend.md) says how to add one.",
            (line for kind in KINDS for line in _kind(kind)),
        ),
        "cli.md": _page(
            "Command line",
            "Every command with its arguments and options. Exit codes: 0 done, 2 an error told in one line, 3 nothing "
            "could be read, 4 the data fails, 5 a requirement does not hold, 130 Ctrl-C, 143 "
            "SIGTERM, 1 a bug of mmfuse.",
            _commands(typer.main.get_command(cli.app), "mmfuse"),
        ),
    }


def _page(title: str, about: str, lines: Iterator[str]) -> str:
    note = "<!-- Written by `make reference`; change the code that it is made of. -->"
    return "\n".join([f"# {title}", "", note, "", about, "", *lines]).rstrip() + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(row)} |" for row in lines), ""]


def _plain(text: str) -> str:
    """A sentence within a cell."""
    text = " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")
    return re.sub(r"(?<![\w`])__?(\w+?)__(?![\w`])", r"`__\1__`", text)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _shown(value: Any) -> str:
    """A default as YAML has it."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, str) and not value:
        return _code("''")
    return _code(yaml.safe_dump(value, default_flow_style=True, width=1000).splitlines()[0])


# Keys of dataclasses


def _schema(
    schema: type, title: str, prefix: str = "", without: frozenset[str] | set[str] = frozenset()
) -> Iterator[str]:
    """A section of a dataclass's own keys, and one of each that it nests."""
    yield f"## {title}"
    yield ""
    if prefix:
        yield f"{_plain((inspect.getdoc(schema) or '').splitlines()[0])}"
        yield ""
    hints, inside, rows = typing.get_type_hints(schema), [], []
    for item in dataclasses.fields(schema):
        if item.name in without or item.name in _NOT_WRITTEN:
            continue
        nested, by_name = nested_in(hints[item.name])
        path = f"{prefix}{item.name}"
        if nested is None:
            rows.append(_key(path, item, hints[item.name]))
            continue
        inside.append((nested, f"{path}.NAME" if by_name else path))
        said = item.metadata.get("help") or (inspect.getdoc(nested) or "").splitlines()[0]
        link = f"[below](#{_anchor(inside[-1][1])})"
        rows.append([_code(path), "", f"mapping, {link}", _plain(said)])
    yield from _table(("key", "default", "legal", "meaning"), rows)
    for nested, path in inside:
        yield from _schema(nested, f"`{path}`", f"{path}.")


def _shared(one: type, other: type) -> set[str]:
    """Names of the keys that mean the same in both."""
    helps = {item.name: item.metadata.get("help") for item in dataclasses.fields(other)}
    return {item.name for item in dataclasses.fields(one) if helps.get(item.name, 0) == item.metadata.get("help")}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _key(path: str, item: dataclasses.Field[Any], hint: Any) -> list[str]:
    default = item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore[misc]
    shown = "required" if default == "???" else "" if default is None else _shown(default)
    return [_code(path), shown, _legal(hint, item.metadata), _plain(item.metadata["help"])]


def _legal(hint: Any, rules: Any) -> str:
    if rules.get("choices"):
        return ", ".join(_shown(choice) for choice in rules["choices"])
    low, high = rules.get("low"), rules.get("high")
    bounds = [f"≥ {low:g}"] if low is not None else []
    bounds += [f"≤ {high:g}"] if high is not None else []
    return " ".join([_type(hint), *bounds])


def _type(hint: Any) -> str:
    """A type in words; None is told by the default."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(filter(None, (_type(arg) for arg in args if arg is not type(None))))
    if origin is list:
        return f"list of {_plural(args[0])}"
    if origin in (dict, typing.Mapping):
        return "mapping"
    return _NAMES.get(hint, "")


def _plural(hint: Any) -> str:
    return {str: "texts", int: "whole numbers", float: "numbers"}.get(hint, "values")


# What is registered by name


def _kind(kind: str) -> Iterator[str]:
    module, _, name = KINDS[kind].partition(":")
    registry = getattr(importlib.import_module(module), name)
    yield f"## {kind}"
    yield ""
    yield f"{_ABOUT[kind]}. `mmfuse list {kind}`"
    yield ""
    rows = []
    for own in registry.names():
        doc = inspect.getdoc(registry.get(own)) or ""
        rows.append([_code(own), _plain(_first(doc)), "<br>".join(_option(registry, own, doc)) or "none"])
    yield from _table(("name", "what it is", "options"), rows)


def _first(doc: str) -> str:
    """The first paragraph's first sentence of a docstring."""
    return doc.split("\n\n")[0].split(". ")[0].rstrip(".") if doc else ""


def _option(registry: Any, name: str, doc: str) -> Iterator[str]:
    meanings = _meanings(doc)
    reserved = ("labels",) if registry is TASKS else ()
    for option, parameter in registry.options(name).items():
        if option in reserved:
            continue
        shown = "required" if parameter.default is parameter.empty else _shown(parameter.default)
        meaning = f": {_plain(meanings[option])}" if option in meanings else ""
        yield f"{_code(option)} ({shown}){meaning}"


def _meanings(doc: str) -> dict[str, str]:
    """By argument, what the section `Args:` of a docstring says."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.DOTALL | re.MULTILINE)
    found = re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", section[1], re.MULTILINE) if section else []
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}


# Commands


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        elif not command.hidden:
            yield from _command(command, f"{path} {name}")


def _command(command: Any, path: str) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    words = [_argument(p) for p in arguments]
    yield f"## {path}"
    yield ""
    yield _plain(command.help or "")
    yield ""
    yield "```text"
    yield " ".join([path, *words, "[OPTIONS]" if options else ""]).rstrip()
    yield "```"
    yield ""
    if command.epilog:
        yield _plain(command.epilog)
        yield ""
    rows = [[_code(_argument(p)), "required" if p.required else "", _plain(p.help or "")] for p in arguments]
    hints = typing.get_type_hints(inspect.unwrap(command.callback))
    rows += [[_code(_flag(p, hints[p.name])), _default(p), _plain(p.help or "")] for p in options]
    yield from _table(("argument or option", "default", "meaning"), rows)


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()).strip("[].")
    name = f"{name}..." if parameter.nargs == -1 else name
    return name if parameter.required else f"[{name}]"


def _flag(parameter: Any, hint: Any) -> str:
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return names
    kind = next((one for one in _within(hint) if one in _PLACES), str)
    again = " ..." if parameter.multiple else ""
    return f"{names} {parameter.metavar or _PLACES[kind]}{again}"


def _within(hint: Any) -> Iterator[Any]:
    """A type, and all that it is made of."""
    yield hint
    for inner in typing.get_args(hint):
        yield from _within(inner)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if value is None or value is False or value == []:
        return ""
    return _shown(str(value) if isinstance(value, Path) else value)


def write() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
