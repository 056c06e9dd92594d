"""Each message that docs/faq.md quotes is still one of the code's."""

import ast
import re
from functools import cache

import pytest
from doc_pages import ROOT

PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


@cache
def literals():
    """All texts of the code, with `...` where a value is put in."""
    found = set()
    for path in (ROOT / "mmfuse").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values))
    return found


def is_said(message):
    """Whether a text of the code has the message's words, in their order."""
    words = [re.escape(part) for part in message.split("...") if part.strip(" :;,")]
    return any(re.search(".*".join(words), text, re.DOTALL) for text in literals())


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_is_the_codes(message):
    assert is_said(message), f"no text of mmfuse says {message!r}"


def test_what_nobody_says_is_found():
    assert not is_said("the patient is in two splits")
    assert not is_said("no such key, legal: ...")


def test_there_are_twenty():
    assert len(set(QUOTED)) == len(QUOTED) >= 20
