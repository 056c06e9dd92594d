"""Findings on features that stand in for texts or images: those that cannot be read, or are not as wide as others."""

from __future__ import annotations

from collections import Counter

from mmfuse.data.audit.findings import Finding
from mmfuse.data.audit.rows import Rows
from mmfuse.data.readers.features import FeatureOptions, from_text, read_features
from mmfuse.data.readers.images import ImageError
from mmfuse.data.tables.manifest import ImageSpec, TextSpec


def check_features(rows: Rows, spec: TextSpec | ImageSpec, modality: str) -> tuple[list[str], list[Finding]]:
    """Facts and findings on all of them.

    Args:
        rows: The rows.
        spec: What the manifest says; its `features` are there.
        modality: "text" or "image", in place of which they stand.
    """
    assert spec.features is not None
    options = FeatureOptions(spec.features.dim, spec.features.array)
    widths, broken = Counter(), []
    for row, id in enumerate(rows.ids):
        text = rows.texts[row]
        try:
            if modality == "image":
                widths.update(read_features(item, options, rows.urls).shape[1] for item in rows.images[row])
            elif text is not None:
                widths.update([from_text(text, options).shape[1]])
        except ImageError as error:
            broken.append((id, str(error)))
    facts = [f"{modality}: features of {', '.join(f'{width} numbers' for width in sorted(widths)) or 'no row'}"]
    found = []
    if broken:
        (id, why), n = broken[0], len(broken)
        message = f"{modality}.features: {n} row(s) cannot be read, such as {id!r}: {why}"
        found.append(Finding("features.unreadable", "error", message, "correct them, or leave the cells empty"))
    if len(widths) > 1:
        message = f"{modality}.features: rows have {', '.join(f'{w} ({n})' for w, n in widths.most_common())} numbers"
        found.append(Finding("features.widths", "error", message, "make all of one width, and say it as dim"))
    return facts, found
