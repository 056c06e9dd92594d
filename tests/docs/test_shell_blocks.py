"""Every command on the pages is read by the command line's own parser; nothing is run."""

import re
import shlex
import tomllib

import pytest
import typer
from doc_pages import ROOT, blocks, shell_lines, spans

from mmfuse import cli
from mmfuse.benchmarking.config import load_benchmark_config
from mmfuse.cli.names import KINDS
from mmfuse.cli.request import Request
from mmfuse.cli.shipped import shipped
from mmfuse.config import config_from_dict, read_yaml
from mmfuse.types import MmfuseError

COMMAND = typer.main.get_command(cli.app)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
WRONG = (AssertionError, MmfuseError, _UsageError)
"""What a command that is not legal raises."""
WITHIN_A_LOOP = {"for", "do", "done"}
LINES = [(where, words) for where, words in shell_lines() if words[0] not in WITHIN_A_LOOP]


def parse(words):
    """The command that `mmfuse WORDS` names, and its options as parsed; an unknown option is an error."""
    command, path = COMMAND, []
    while hasattr(command, "commands"):
        assert words, f"mmfuse {' '.join(path)} needs a command"
        name, *words = words
        assert name in command.commands, f"there is no command {name!r}"
        command, path = command.commands[name], [*path, name]
    return " ".join(path), command.make_context(name, list(words)).params


def check_overrides(command, options):
    """The keys that are overridden exist; the file is the shipped one, or else a minimal one."""
    path, overrides = ROOT / options["config"], [one.replace("$fold", "0") for one in options["overrides"] or []]
    least = {"name": "x", "data": {"manifest": "x.yaml"}}
    read = load_benchmark_config if command == "benchmark" else config_from_dict
    read(read_yaml(path) if path.is_file() else least, overrides)


def check_mmfuse(words):
    command, options = parse(words)
    if command in ("train", "benchmark") and options["overrides"] != ["key=value"]:
        check_overrides(command, options)
    if command == "predict":
        Request(**options).check()
    if command == "list":
        assert options["kind"] in KINDS
    if command == "config" and options["copy"]:
        assert options["copy"].removeprefix("configs/").removesuffix(".yaml") in shipped()
    for option in ("config", "manifest"):
        check_there(str(options.get(option)))
    if command == "data prepare":
        from mmfuse.data.public.sources import SOURCES

        assert options["name"] in SOURCES.names()


def check_there(path):
    """What lies in the repository's own folders is there."""
    if path.split("/")[0] in ("configs", "data_manifests", "benchmarks", "docs", "mmfuse", "tests"):
        assert (ROOT / path).exists(), f"{path} is not in the repository"


def check_pip(words):
    for name in re.findall(r"(?:mmfuse|\.)\[([\w,]+)\]", " ".join(words)):
        for extra in name.split(","):
            assert extra in PROJECT["optional-dependencies"], f"there is no extra {extra!r}"


def check_python(words):
    """Of `python benchmarks/X.py ...` the script, and that its code, or what it imports, has each of the options."""
    if not words or not words[0].endswith(".py"):
        return
    check_there(words[0])
    script = ROOT / words[0]
    code = [script.read_text(encoding="utf-8")]
    code += [
        path.read_text(encoding="utf-8")
        for path in script.parent.glob("*.py")
        if re.search(rf"^(?:from|import) {path.stem}\b", code[0], re.MULTILINE)
    ]
    for word in words[1:]:
        if word.startswith("--"):
            assert any(f'"{word}"' in text for text in code), f"{words[0]} has no option {word}"


def check(words):
    """One command of a shell."""
    if "mmfuse.cli" in words:  # under a launcher
        ours = words[words.index("mmfuse.cli") + 1 :]
        for path in words[: words.index("mmfuse.cli")]:
            check_there(path)
        return check_mmfuse(ours)
    program, *rest = words
    if program == "mmfuse":
        return check_mmfuse(rest)
    if program == "make":
        assert set(rest) <= TARGETS, f"make has none of {sorted(set(rest) - TARGETS)}"
        return None
    if program == "pip":
        return check_pip(rest)
    assert program in ("python", "cd", "git"), f"{program!r} is a program that this test does not know"
    return check_python(rest) if program == "python" else None


def test_each_command_is_legal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = []
    for where, words in LINES:
        try:
            check(words)
        except WRONG as error:
            wrong.append(f"{where}\n    {getattr(error, 'message', error)}")
    assert not wrong, "\n".join(wrong)
    assert len(LINES) > 80


@pytest.mark.parametrize(
    "wrong",
    [
        "mmfuse train train.yaml --retsart",
        "mmfuse train train.yaml training.epoch=3",
        "mmfuse train configs/nothing.yaml",
        "mmfuse evaluate MODEL",
        "mmfuse predict MODEL FOLDER --batch-size many",
        "mmfuse predict MODEL FOLDER --engine tensorrt",
        "mmfuse tarin train.yaml",
        "mmfuse list fusion",
        "mmfuse data check",
        "mmfuse benchmark b.yaml seed=2",
        "torchrun --nproc_per_node 2 -m mmfuse.cli train train.yaml --fast",
        "make tests",
        'pip install "mmfuse[dicoms]"',
        "python benchmarks/speed.py --everything",
        "rm -rf runs",
    ],
)
def test_a_wrong_one_is_found(wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WRONG):
        check(shlex.split(wrong))


def test_a_block_of_commands_says_that_it_is_one():
    found = [str(block) for block in blocks("") if re.search(r"^(mmfuse|make|pip|python) ", block.text, re.MULTILINE)]
    assert not found, "write ```sh"


def known(words):
    """`mmfuse WORDS` within a sentence, where arguments may be left out: the command and its options exist."""
    command = COMMAND
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    legal = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in {*legal, "--help"}, f"{command.name} has no option {word}"


def test_what_sentences_name_exists():
    """Commands, targets of make, extras and files of the repository, in `code` within sentences and in tables."""
    seen, wrong = 0, []
    for where, span in spans():
        try:
            if span.startswith("mmfuse "):
                known(shlex.split(span)[1:])
            elif span.startswith("make "):
                assert set(shlex.split(span)[1:]) <= TARGETS
            elif span.startswith("pip "):
                check_pip(shlex.split(span))
            elif re.fullmatch(r"(?:configs|data_manifests|benchmarks|docs|mmfuse|tests)/[\w/.-]+\.\w+", span):
                check_there(span)
            else:
                continue
            seen += 1
        except (AssertionError, ValueError) as error:
            wrong.append(f"{where}: `{span}`: {error}")
    assert not wrong, "\n".join(wrong)
    assert seen > 100


def test_every_extra_is_in_the_readmes_table():
    table = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`(\w+)`", "\n".join(table)))
    assert set(PROJECT["optional-dependencies"]) - {"dev", "test", "docs"} <= named
