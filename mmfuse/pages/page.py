"""The frame of a page: one file, readable without scripts, on any screen, in the dark and on paper."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mmfuse.pages.markup import Content, Html, tag

_SCRIPT = """addEventListener("beforeprint",()=>{for(const d of document.querySelectorAll("details"))d.open=true})"""


class Notice(NamedTuple):
    """A notice.

    Attributes:
        kind: One word, for tests and styles.
        text: What is to be known.
        title: In bold before it.
        warns: The numbers cannot be taken at face value.
    """

    kind: str
    text: str
    title: str = ""
    warns: bool = False


def whole_page(title: str, *main: Content, before: Content = None, scripts: bool = True) -> str:
    """A page of which nothing is fetched.

    Args:
        title: Of the window.
        *main: What the page says.
        before: What stands before that and is not seen, such as marks of charts.
        scripts: Whether what is folded is opened for paper, which takes one.
    """
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
    body = tag("body", before, tag("main", main), tag("script", Html(_SCRIPT)) if scripts else None)
    return "<!doctype html>\n" + tag("html", head, body, lang="en")


def page_title(kind: str, name: str, said: Content) -> Html:
    """The head of a page: what kind it is, its name, and a sentence."""
    return tag("header", tag("p", kind, class_="over"), tag("h1", name), tag("p", said))


def notice_box(notice: Notice) -> Html:
    """A notice in its box; a sign, and not the colour alone, says how grave it is."""
    return tag("p", tag("span", "⚠ " if notice.warns else "ℹ ", aria_hidden="true"), tag("b", f"{notice.title} "),
               notice.text, class_="notice" + (" warns" if notice.warns else ""), data_notice=notice.kind)  # fmt: skip


def facts(entries: dict[str, Content]) -> Html:
    """Names and what is said of them, in two columns."""
    return tag("dl", [(tag("dt", name), tag("dd", said)) for name, said in entries.items()], class_="facts")
