"""Links between the pages lead somewhere, their headings included, and each page can be reached."""

import re

from doc_pages import PAGES, ROOT, anchor

import mmfuse

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ONLY_ON_THE_SITE = {ROOT / "docs" / f"{name}.md" for name in ("index", "api", "contributing", "changelog")}
FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def text_of(page):
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page):
    """(target, anchor) of each link of a page to the repository."""
    for found in LINK.findall(text_of(page)):
        if "://" not in found and not found.startswith("mailto:"):
            path, _, heading = found.partition("#")
            yield (page.parent / path).resolve() if path else page, heading


def headings(page):
    return {anchor(found) for found in re.findall(r"^#+ +(.+)$", text_of(page), re.MULTILINE)}


def test_links_lead_somewhere():
    wrong = []
    for page in PAGES:
        for target, heading in links(page):
            if not target.exists():
                wrong.append(f"{page.relative_to(ROOT)}: {target} is not there")
            elif heading and target.suffix == ".md" and heading not in headings(target):
                wrong.append(f"{page.relative_to(ROOT)}: {target.name} has no heading #{heading}")
    assert not wrong, "\n".join(wrong)


def test_each_page_can_be_reached_from_the_readme():
    seen, open_ = set(), [ROOT / "README.md"]
    while open_:
        page = open_.pop()
        if page in seen:
            continue
        seen.add(page)
        open_ += [target for target, _ in links(page) if target.suffix == ".md" and target.is_file()]
    assert not set(PAGES) - seen - ONLY_ON_THE_SITE


def test_the_page_on_python_has_each_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\.\. auto\w+:: mmfuse\.(\w+)$", page, re.MULTILINE)) == set(mmfuse.__all__)


def test_the_site_has_each_page_in_its_navigation():
    listed = re.findall(r"^([\w/]+)$", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    assert len(listed) == len(set(listed))
    assert {"index", *listed} == {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in pages}
