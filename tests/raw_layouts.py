"""Layouts of data as people have it, made up: some dozen rows each, with files of images where they are named."""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image

_NOUNS = "table garden window river harbour market street bridge engine bottle jacket carpet lamp clock mirror stone"
_OTHERS = "the a small large old bright dark quiet loud broken fresh heavy light strange round flat narrow wide glass"
_WORDS = f"{_NOUNS} {_OTHERS} wooden metal paper painted covered under above between stands lies hangs moves".split()
KINDS = ("cat", "dog", "bird")


def sentence(draw: random.Random, words: int = 12) -> str:
    """Words that tell nothing."""
    return " ".join(draw.choice(_WORDS) for _ in range(words))


def png(color: int = 0) -> bytes:
    """A small image."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (color % 256, color // 7 % 256, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def put(path: Path, data: bytes | str) -> None:
    """A file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def table(path: Path, rows: list[dict], separator: str = ",", encoding: str = "utf-8", header: bool = True) -> Path:
    """A csv file."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), delimiter=separator, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    put(path, buffer.getvalue().encode(encoding))
    return path


def german_semicolons(root: Path) -> Path:
    draw, rows = random.Random(1), []
    for i in range(60):
        put(root / f"Bilder/{i:04d}.png", png(i))
        text = f"Röntgenaufnahme: {sentence(draw)}, Größe unverändert."
        row = {"Nr": f"F{i:03d}", "PatientenID": f"P{i // 3}", "Bild": f"{i:04d}.png", "Befund": text}
        rows.append({**row, "Diagnose": draw.choice(["Pneumonie", "Ödem", "unauffällig"])})
    return table(root / "studien.csv", rows, ";", "cp1252")


def stems_in_a_subfolder(root: Path) -> Path:
    draw, rows = random.Random(2), []
    for i in range(60):
        put(root / f"pics/batch{i % 2}/item_{i}.jpg", png(i))
        rows.append({"item": f"item_{i}", "review": sentence(draw), "stars": str(draw.randint(1, 5))})
    return table(root / "reviews.tsv", rows, "\t")


def lists_in_jsonl(root: Path) -> Path:
    draw, lines = random.Random(3), []
    for i in range(60):
        put(root / f"img/{i}.png", png(i))
        tags = draw.sample(["red", "blue", "green", "old", "new"], draw.randint(0, 3))
        lines.append(
            json.dumps({"uid": f"u{i}", "image_path": f"img/{i}.png", "summary": sentence(draw), "tags": tags})
        )
    put(root / "items.jsonl", "\n".join(lines))
    return root / "items.jsonl"


def bytes_in_parquet(root: Path) -> Path:
    draw = random.Random(4)
    rows = [{"image": {"bytes": png(i), "path": None}, "text": sentence(draw), "label": i % 3} for i in range(60)]
    root.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(root / "train-00000.parquet")
    return root / "train-00000.parquet"


def template_captions(root: Path) -> Path:
    """The caption names the class: only `notes` may be read."""
    draw, rows = random.Random(5), []
    for i in range(60):
        put(root / f"images/{i}.png", png(i))
        kind = KINDS[i % 3]
        row = {"id": i, "image": f"images/{i}.png", "caption": f"a photo of a {kind} {sentence(draw, 4)}"}
        rows.append({**row, "notes": sentence(draw), "species": kind})
    return table(root / "animals.csv", rows)


def titles_of_codes(root: Path) -> Path:
    """The class is a number, and the title begins with its name; the path too."""
    draw, rows = random.Random(6), []
    for i in range(90):
        put(root / f"{KINDS[i % 3]}/{i}.png", png(i))
        row = {"filename": f"{KINDS[i % 3]}/{i}.png", "title": f"{KINDS[i % 3].title()} - {sentence(draw, 5)}"}
        rows.append({**row, "description": sentence(draw, 20), "class_id": i % 3})
    return table(root / "list.csv", rows)


def key_is_value(root: Path) -> Path:
    draw, rows = random.Random(7), []
    for i in range(80):
        put(root / f"scans/s{i}.png", png(i))
        finding = draw.choice(["present", "absent"])
        row = {"scan_id": f"s{i}", "scan": f"scans/s{i}.png", "meta": f"age={i} years; finding={finding}; site={i % 4}"}
        rows.append({**row, "history": sentence(draw), "finding": finding})
    return table(root / "scans.csv", rows)


def several_images(root: Path) -> Path:
    draw, rows = random.Random(8), []
    for i in range(40):
        for view in "ab":
            put(root / f"films/{i}{view}.png", png(i))
        row = {"study": f"st{i}", "films": f"{i}a.png;{i}b.png", "report": sentence(draw, 30)}
        rows.append({**row, "mesh": draw.choice(["edema;effusion", "edema", "normal", "effusion", "fracture;edema"])})
    return table(root / "studies.csv", rows)


def prices_in_texts(root: Path) -> Path:
    draw, rows = random.Random(9), []
    for i in range(80):
        put(root / f"p/{i}.jpg", png(i))
        price = f"{draw.randint(100, 99999) / 100:.2f}"
        row = {"sku": f"A{i:05d}", "photo": f"p/{i}.jpg", "advert": f"{sentence(draw)} only {price} now"}
        rows.append({**row, "details": sentence(draw), "price": price})
    return table(root / "shop.csv", rows)


def folder_a_label(root: Path) -> Path:
    for i in range(30):
        put(root / f"{KINDS[i % 3]}/{i}.png", png(i))
    return root


def folder_a_split_and_label(root: Path) -> Path:
    for i in range(60):
        split = ("train", "val", "test")[0 if i % 10 < 7 else 1 if i % 10 < 8 else 2]
        put(root / f"{split}/{KINDS[i % 3]}/{i}.png", png(i))
    return root


def pairs_a_label(root: Path) -> Path:
    draw = random.Random(10)
    for i in range(30):
        put(root / f"{KINDS[i % 3]}/{i}.png", png(i))
        put(root / f"{KINDS[i % 3]}/{i}.txt", sentence(draw))
    return root


def pairs_with_labels(root: Path) -> Path:
    draw, rows = random.Random(11), []
    for i in range(30):
        put(root / f"{i:03d}.png", png(i))
        put(root / f"{i:03d}.txt", sentence(draw))
        rows.append({"id": f"{i:03d}", "label": KINDS[i % 3]})
    table(root / "labels.csv", rows)
    return root


def no_header(root: Path) -> Path:
    draw, rows = random.Random(12), []
    for i in range(40):
        put(root / f"photos/IMG_{i}.jpg", png(i))
        rows.append({"1": f"IMG_{i}.jpg", "2": sentence(draw), "3": KINDS[i % 3]})
    return table(root / "train.csv", rows, header=False)


def patients_in_paths(root: Path) -> Path:
    rows = []
    for i in range(60):
        path = f"cohort/patient{i // 4:03d}/study{i // 2}/view{i}.png"
        put(root / path, png(i))
        rows.append({"Path": path, "Edema": ("1.0", "0.0", "-1.0", "")[i % 4], "Fracture": ("0.0", "1.0", "")[i % 3]})
    return table(root / "list.csv", rows)


def splits_in_a_column(root: Path) -> Path:
    draw, rows = random.Random(13), []
    for i in range(60):
        put(root / f"i/{i}.png", png(i))
        row = {"Unnamed": i, "file": f"{i}.png", "question": f"{sentence(draw)}?", "answer": draw.choice(["yes", "no"])}
        rows.append({**row, "partition": ("train", "train", "train", "dev", "test")[i % 5]})
    return table(root / "vqa.csv", rows)


def japanese(root: Path) -> Path:
    draw, rows = random.Random(14), []
    letters = "日本語の短い文章を並べて作る例文では単語の間に空白がない"
    for i in range(60):
        put(root / f"画像/{i}.png", png(i))
        text = "".join(draw.choice(letters) for _ in range(24)) + "。"
        rows.append(
            {"番号": f"J{i}", "画像": f"画像/{i}.png", "本文": text, "分類": draw.choice(["料理", "旅行", "科学"])}
        )
    return table(root / "記事.csv", rows)


def five_captions(root: Path) -> Path:
    draw, rows = random.Random(15), []
    for i in range(20):
        put(root / f"photos/{i}.jpg", png(i))
        rows += [{"image": f"{i}.jpg", "caption": f"{sentence(draw, 9)} ."} for _ in range(5)]
    return table(root / "captions.txt", rows, ",")


def texts_alone(root: Path) -> Path:
    draw = random.Random(16)
    rows = [
        {"tweet_id": 10**9 + i, "tweet": sentence(draw), "sentiment": draw.choice(["pos", "neg"])} for i in range(60)
    ]
    return table(root / "tweets.csv", rows)


def nested_categories(root: Path) -> Path:
    """The level above and the level below, and a path of both, tell the target."""
    draw, rows = random.Random(17), []
    tree = {
        "Kitchen": ("Pots and Pans", "Small Knives"),
        "Garden": ("Long Hoses", "Seed Trays"),
        "Toys": ("Board Games",),
    }
    for i in range(120):
        top = draw.choice(list(tree))
        below = draw.choice(tree[top])
        put(root / f"{i}.webp", png(i))
        row = {
            "product_id": f"p{i}",
            "image_url": f"{i}.webp",
            "category_path": f"{top} > {below} > {sentence(draw, 2)}",
        }
        rows.append({**row, "subcategory_name": below, "product_description": sentence(draw, 25), "department": top})
    return table(root / "catalogue.csv", rows)


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str | None, tuple]] = {
    f.__name__: (f, target, expected)
    for f, target, expected in (
        # id, image, text, group, target, kind
        (german_semicolons, "Diagnose", ("Nr", "Bild", ["Befund"], "PatientenID", "Diagnose", "classification")),
        (stems_in_a_subfolder, "stars", ("item", "image_file", ["review"], None, "stars", "classification")),
        (lists_in_jsonl, "tags", ("uid", "image_path", ["summary"], None, "tags", "multilabel")),
        (bytes_in_parquet, "label", ("row", "image", ["text"], None, "label", "classification")),
        (template_captions, "species", ("id", "image", ["notes"], None, "species", "classification")),
        (titles_of_codes, "class_id", ("filename", "filename", ["description"], None, "class_id", "classification")),
        (key_is_value, "finding", ("scan_id", "scan", ["history"], None, "finding", "classification")),
        (several_images, "mesh", ("study", "films", ["report"], None, "mesh", "multilabel")),
        (prices_in_texts, "price", ("sku", "photo", ["details"], None, "price", "regression")),
        (folder_a_label, None, ("id", "image", None, None, "label", "classification")),
        (folder_a_split_and_label, None, ("id", "image", None, None, "label", "classification")),
        (pairs_a_label, None, ("id", "image", ["text"], None, "label", "classification")),
        (pairs_with_labels, "label", ("id", "{id}.png", ["text"], None, "label", "classification")),
        (no_header, "column_3", ("column_1", "column_1", ["column_2"], None, "column_3", "classification")),
        (patients_in_paths, "Edema", ("Path", "Path", None, "patient", "Edema", "classification")),
        (splits_in_a_column, "answer", ("Unnamed", "file", ["question"], None, "answer", "classification")),
        (japanese, "分類", ("番号", "画像", ["本文"], None, "分類", "classification")),
        (five_captions, "caption", ("row", "image", None, "image", "caption", "captioning")),
        (texts_alone, "sentiment", ("tweet_id", None, ["tweet"], None, "sentiment", "classification")),
        (
            nested_categories,
            "department",
            ("product_id", "image_url", ["product_description"], None, "department", "classification"),
        ),
    )
}
"""By name: what writes it, the target that is named, and what is to be guessed."""
