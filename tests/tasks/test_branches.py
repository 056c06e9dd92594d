"""What a target is stands in mmfuse/tasks and mmfuse/heads: outside, next to nothing asks which kind a task is of."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmfuse.tasks import TASKS

PACKAGE = Path(__file__).parents[2] / "mmfuse"
KINDS = {"captioning", "classification", "multilabel", "regression"}
OWN = ("tasks", "heads")
ALLOWED = {
    "metrics/calibration.py": 3,  # fit_temperature is public, and its caller says what the target is
    "metrics/operating.py": 1,  # below tasks, where arrays are all that there is
    "metrics/regression.py": 1,  # the same: it refuses what is no column
    "metrics/scored.py": 1,  # the same
    "training/identity.py": 1,  # an array of objects has no bytes to hash
    "data/audit/repair.py": 1,  # the same
    "data/synthetic/interactions.py": 1,  # values that are not encoded yet, of tasks that it makes itself
}
"""By file, how many; more is a branch that belongs into a method of TaskKind."""
GENERATING = 17
"""Uses of `model.captioning`: heads that generate need a decoder, a tokenizer and a loop; that is no kind of target."""


def branches(source: str) -> Iterator[tuple[int, str]]:
    """Where code asks which kind a task is of: by its name, by a table of names, or by a target's form."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            said = {c.value for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant)}
            if said & KINDS:
                yield node.lineno, "name"
            attributes = {side.attr for side in sides if isinstance(side, ast.Attribute)}
            owners = {ast.unparse(side.value) for side in sides if isinstance(side, ast.Attribute)}
            targets = {owner for owner in owners if "target" in owner}
            if targets and ("ndim" in attributes or (attributes == {"dtype"} and "object" in ast.unparse(node))):
                yield node.lineno, "form"
        elif isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if keys & KINDS:
                yield node.lineno, "table"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and "target" in ast.unparse(node):
            yield node.lineno, "form"


def found(root: Path) -> dict[str, list[tuple[int, str]]]:
    """By file outside tasks/ and heads/, its branches."""
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.py"))}
    asked = {name: list(branches(path.read_text())) for name, path in files.items() if name.split("/")[0] not in OWN}
    return {name: places for name, places in asked.items() if places}


def test_the_kinds_are_all_known_here():
    assert set(TASKS.names()) <= KINDS


def test_next_to_nothing_branches_on_a_tasks_kind():
    assert {name: len(places) for name, places in found(PACKAGE).items()} == ALLOWED


def test_no_more_is_asked_of_heads_that_generate():
    text = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert text.count(".captioning\n") + text.count("model.captioning") <= GENERATING


@pytest.mark.parametrize(
    "code",
    [
        'if head.kind == "captioning": pass',
        'x = 1 if spec.type != "multilabel" else 2',
        'y = kind in ("classification", "multilabel")',
        'TYPES = {"classification": 1}',
        "if target.ndim == 1: pass",
        "captions = targets.dtype == object",
        "isinstance(target, tuple)",
    ],
)
def test_each_way_to_ask_is_seen(code):
    assert len(list(branches(code))) == 1


def test_what_is_no_question_is_not_seen():
    assert not list(branches('build_head("captioning", 3)\nx.ndim == 2\nimages.dtype == object\nname == "caption"'))
