"""The worst errors and surest successes, with pictures and texts: data of persons, so only where asked for."""

from __future__ import annotations

import base64
import io
from typing import Any

from mmfuse.data.load import load_table
from mmfuse.data.readers.images import ImageError, ImageOptions, read_image
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.data.tables.table import Table
from mmfuse.evaluation.run_page.folder import RunFolder, Scores
from mmfuse.evaluation.run_page.labels import wrongness
from mmfuse.evaluation.run_page.others import caption_wrongness, number_wrongness
from mmfuse.pages.markup import Content, Html, tag
from mmfuse.types import MmfuseError

NUMBER = 24
SIDE = 144
"""Pixels of a picture's sides."""
LONGEST_TEXT = 240


def open_table(run: RunFolder) -> Table:
    """The rows that the run was trained and scored on.

    Raises:
        MmfuseError: They cannot be read where the run's config says, or are others.
    """
    data = run.config["data"]
    manifest = load_manifest(data["manifest"], data.get("root"))
    then = run.environment.get("manifest", {}).get("sha256")
    if then and manifest.sha256 != then:
        raise MmfuseError(f"{manifest.source}: it has changed since the run; its sha256 was {then[:16]}...")
    labels = {task: of["labels"] for task, of in run.model["tasks"].items()}
    return load_table(manifest, tasks=list(labels), labels=labels, fold=data.get("fold"))


def hidden_examples(run: RunFolder) -> Html:
    """What stands where examples are not shown."""
    text = (
        f"The {NUMBER} worst errors and {NUMBER} surest successes, with their pictures and texts, are left out, as "
        "these may be data of persons. "
    )
    command = tag("code", f"mmfuse report {run.dir.name} --with-examples")
    return tag("section", tag("h2", "Examples"),
               tag("p", text, command, " writes this page with them.", class_="note"))  # fmt: skip


def examples_section(run: RunFolder, task: Scores, table: Table) -> Html:
    """The examples of a task."""
    kind = task.kind
    find = caption_wrongness if kind.is_text else wrongness if kind.has_labels else number_wrongness
    found = find(task)
    order = sorted(range(len(found)), key=lambda i: found[i][0])
    worst = [i for i in reversed(order) if not found[i][1]][:NUMBER]
    best = [i for i in order if found[i][1]][:NUMBER]
    row_of = {name: row for row, name in enumerate(table.rows["id"])}

    def shown(chosen: list[int]) -> Content:
        cards = [_card(table, row_of[task.ids[i]], task.ids[i], found[i][2]) for i in chosen if task.ids[i] in row_of]
        return tag("ul", cards, class_="examples") if cards else tag("p", "There is none.", class_="note")

    note = "THIS PAGE HOLDS ROWS OF THE DATA, which may be of persons: pass it on only where the data may go."
    sure = "rows with the smallest error" if not kind.has_labels else "surest successes"
    return tag("section", tag("h2", f"Examples: {task.name}"), tag("p", note, class_="notice warns"),
               tag("h3", f"The {len(worst)} worst errors"), shown(worst),
               tag("h3", f"The {len(best)} {sure}"), shown(best))  # fmt: skip


def _card(table: Table, row: int, name: str, said: str) -> Html:
    sample = table.sample(row)
    text = sample.text or ""
    cut = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    more = f"and {len(sample.images) - 1} more pictures" if len(sample.images) > 1 else None
    return tag("li", _picture(sample.images[0], sample.urls, name) if sample.images else None,
               tag("p", tag("b", said)), tag("p", cut) if cut else None,
               tag("p", f"row {name}" + (f"; {more}" if more else ""), class_="note"))  # fmt: skip


def _picture(source: Any, urls: Any, name: str) -> Html:
    from PIL import Image

    try:
        pixels = read_image(source, ImageOptions(size=(SIDE, SIDE), resize="pad"), urls=urls or ())
    except ImageError as error:
        return tag("p", f"picture not read: {error}", class_="note")
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=72)
    data = base64.b64encode(written.getvalue()).decode()
    return tag("img", src=f"data:image/jpeg;base64,{data}", alt=f"picture of row {name}", width=SIDE, height=SIDE)
