"""docs/reference/ is what the schemas and the command line say now."""

import dataclasses
import importlib.util

import pytest
from doc_pages import ROOT

from mmfuse.config import key

MADE_BY = ROOT / "docs" / "make_reference.py"


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("make_reference", MADE_BY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_current(reference):
    pages = reference.pages()
    assert {path.name for path in (ROOT / "docs" / "reference").iterdir()} == set(pages)
    for name, text in pages.items():
        kept = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert kept == text, f"docs/reference/{name} is not current: run `make reference`"


def test_each_key_says_default_values_and_meaning(reference):
    @dataclasses.dataclass
    class Inner:
        """What is inside."""

        share: float = key(0.5, "of a | whole", low=0.0, high=1.0)

    @dataclasses.dataclass
    class Outer:
        """All."""

        kind: str = key("a", "which", choices=("a", "b"))
        needed: str = key("???", "by you")
        inner: Inner = dataclasses.field(default_factory=Inner)

    lines = list(reference._schema(Outer, "Top level"))
    assert "| `kind` | `a` | `a`, `b` | which |" in lines
    assert "| `needed` | required | text | by you |" in lines
    assert "| `inner` |  | mapping, [below](#inner) | What is inside. |" in lines
    assert lines[lines.index("## `inner`") + 2] == "What is inside."
    assert "| `inner.share` | `0.5` | number ≥ 0 ≤ 1 | of a \\| whole |" in lines
