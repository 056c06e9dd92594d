"""The site of the documentation, built by `make docs`: Sphinx, Markdown by MyST, the theme Furo."""

from pathlib import Path
from typing import Any

import mmfuse

project = "mmfuse"
author = "The mmfuse authors"
release = mmfuse.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures"]
html_theme = "furo"
html_title = f"mmfuse {release}"
html_copy_source = False

myst_heading_anchors = 4  # as GitHub has them, so that links work in both
nb_execution_mode = "off"  # what notebooks print is kept in them

autodoc_typehints = "description"
autodoc_member_order = "bysource"
smartquotes = False  # -- is an option's
napoleon_custom_sections = ["Differs", "Prefer when"]
napoleon_use_ivar = True
default_role = "literal"  # docstrings are written with single backticks

_OF_THE_ROOT = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}


def _read_from_root(app: Any, name: str, source: list[str]) -> None:
    """Three pages lie above this folder, where GitHub shows them; their links are turned to where the site has them."""
    if name not in _OF_THE_ROOT:
        return
    text = (Path(app.srcdir).parent / _OF_THE_ROOT[name]).read_text(encoding="utf-8").replace("](docs/", "](")
    for page, file in _OF_THE_ROOT.items():
        text = text.replace(f"]({file})", f"]({page}.md)")
    source[0] = f"{text}\n{source[0]}"


def _mark_examples(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What stands below `Example:` in a docstring is code."""
    for start in [number for number, line in enumerate(lines) if line.strip() == "Example:"]:
        end = start + 1
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
            lines[end] = f"    {lines[end]}"
            end += 1
        lines[start + 1 : start + 1] = ["    .. code-block:: python", ""]


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read_from_root)
    app.connect("autodoc-process-docstring", _mark_examples, priority=400)  # before Napoleon reads the sections
