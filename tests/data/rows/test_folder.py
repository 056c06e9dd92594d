"""Folders as they really arrive: every image and text in one study, or in the list of ignored files."""

import os
import time
import unicodedata
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse.data.readers.kinds import IMAGE_SUFFIXES, TEXT_SUFFIXES
from mmfuse.data.rows import folder as folder_module
from mmfuse.data.rows.folder import Entry, find_study, pair_folder, tell_ignored
from mmfuse.types import MmfuseError, Sample


def fill(root, *names, text=b"a report"):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return root


def summary(root, layout="auto"):
    """By id: the names of its images and texts, relative to the root."""
    entries, _ = pair_folder(root, layout)
    assert [entry.id for entry in entries] == sorted(entry.id for entry in entries)
    return {e.id: [os.path.relpath(path, root) for path in e.images + e.texts] for e in entries}


# --- stem ----------------------------------------------------------------------------------------------------------


def test_same_stem_in_the_same_folder_is_one_study(tmp_path):
    fill(
        tmp_path,
        "b.png",
        "b.txt",
        "a.jpg",
        "ward/a.png",
        "ward/a.report",
        "ward/deep/c.tif",
        "d.text",
        "x.y.gif",
        "x.y.txt",
    )
    assert summary(tmp_path) == {
        "a": ["a.jpg"],
        "b": ["b.png", "b.txt"],
        "d": ["d.text"],
        "ward/a": ["ward/a.png", "ward/a.report"],
        "ward/deep/c": ["ward/deep/c.tif"],
        "x.y": ["x.y.gif", "x.y.txt"],
    }


def test_suffixes_in_any_case(tmp_path):
    for suffix, text_suffix in [*product(IMAGE_SUFFIXES, TEXT_SUFFIXES[:1]), *product([".jpg"], TEXT_SUFFIXES)]:
        root = tmp_path / f"{suffix} {text_suffix}"
        fill(root, f"a{suffix.upper()}", f"a{text_suffix.title()}", f"b{suffix}", f"b{text_suffix}")
        entries, ignored = pair_folder(root)
        assert [(e.id, len(e.images), len(e.texts)) for e in entries] == [("a", 1, 1), ("b", 1, 1)]
        assert ignored == []


def test_dicom_files_without_suffix_are_images_by_their_first_bytes(tmp_path):
    dicom = b"\0" * 128 + b"DICM"
    fill(tmp_path, "IM000001", "1.2.840.7", "1.2.840.8", "b.dcm", "notes.v2", "DICOMDIR", text=dicom)
    fill(tmp_path, "IM000001.txt", "1.2.840.7.txt", "b.txt", "README", "2024.01")
    os.mkfifo(tmp_path / "IM000002")
    entries, ignored = pair_folder(tmp_path)
    assert ignored == ["2024.01", "IM000002", "README"]
    assert {entry.id: (len(entry.images), len(entry.texts), entry.problem) for entry in entries} == {
        "IM000001": (1, 1, None),
        "1.2.840.7": (1, 1, None),
        "1.2.840.8": (1, 0, None),
        "b": (1, 1, None),
        "notes": (1, 0, None),
    }
    assert find_study(tmp_path / "1.2.840.7") == find_study(tmp_path / "1.2.840.7.txt") == entries[0]


def test_two_images_or_texts_of_one_stem_are_a_problem(tmp_path):
    fill(tmp_path, "a.png", "a.JPG", "a.txt", "b.png", "b.txt", "b.text", "c.png", "c.txt")
    a, b, c = pair_folder(tmp_path)[0]
    assert a.problem == "2 images of the same name: a.JPG, a.png"
    assert b.problem == "2 texts of the same name: b.text, b.txt"
    assert c.problem is None
    assert a.sample() == Sample(id="a", images=a.images, group="a", problem=a.problem)
    assert len(a.images) == 2


def test_composed_and_decomposed_accents_are_one_name(tmp_path):
    fill(tmp_path, unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.txt"))
    ((entry,), _) = pair_folder(tmp_path)
    assert entry.id == unicodedata.normalize("NFC", "é")
    assert len(entry.images) == len(entry.texts) == 1


def test_names_that_are_not_utf8_have_a_printable_id(tmp_path):
    with open(os.fsencode(tmp_path) + b"/gr\xf6\xdfe.png", "wb"):
        pass
    ((entry,), _) = pair_folder(tmp_path)
    assert entry.id == "gr\\xf6\\xdfe"
    assert os.path.exists(entry.images[0])


def test_clutter_is_passed_over_and_other_files_are_told(tmp_path):
    fill(tmp_path, ".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/a.jpg", ".git/a.png", "ward/THUMBS.DB")
    fill(tmp_path, "a.jpg", "a.txt", "labels.csv", "ward/README.md", "png", "ward/b.png.bak", "@eaDir/b.jpg")
    entries, ignored = pair_folder(tmp_path)
    assert [entry.id for entry in entries] == ["a"]
    assert ignored == ["labels.csv", "png", "ward/README.md", "ward/b.png.bak"]
    assert tell_ignored(ignored) == "4 file(s) ignored: labels.csv, png, ward/README.md and 1 more"
    assert tell_ignored(["a\nb"]) == "1 file(s) ignored: a\\nb"


# --- what is not read ----------------------------------------------------------------------------------------------


def problems(root, layout="auto"):
    return {entry.id: entry.problem for entry in pair_folder(root, layout)[0]}


@pytest.mark.parametrize(
    "name",
    ["p.jxl", "p.HEICS.jxl", "p.nii.gz", "p.CR2", "p.pdf", "p.docx", "p.mp4", "p.psd", "p.svs", "p.txt.gz", "p.dcm.xz"],
)
def test_an_image_or_report_that_is_not_read_is_its_studys_problem(tmp_path, name):
    stem = "p.HEICS" if "HEICS" in name else "p"
    fill(tmp_path / "pair", f"{stem}.txt", f"{stem}.png", name, "q.txt", "q.png")
    fill(tmp_path / "text", f"{stem}.txt", name, "q.txt")
    fill(tmp_path / "alone", name, "q.txt", "ward/" + name)
    said = f"{name} is of a kind that is not read; convert or move away; read are images (JPEG"
    for root in ("pair", "text", "alone"):
        found = problems(tmp_path / root)
        assert found.pop(stem).startswith(said)
        assert found.pop("q") is None
        assert all(id == f"ward/{stem}" and problem.startswith(said) for id, problem in found.items())
        assert pair_folder(tmp_path / root)[1] == []
        assert find_study(tmp_path / root / name).problem.startswith(said)
        assert find_study(tmp_path / root / stem).sample().problem.startswith(said)
    assert "\n" not in said


@pytest.mark.parametrize("name", ["p.md", "p.zip", "p.npy", "p.tar.gz", "p.wav"])
def test_what_may_be_the_missing_half_is_a_problem_only_where_one_is_missing(tmp_path, name):
    fill(tmp_path / "stem", "p.txt", "p.png", name, "README.md", "other.md", "q.txt")
    assert problems(tmp_path / "stem") == {"p": None, "q": None}
    assert pair_folder(tmp_path / "stem")[1] == sorted([name, "README.md", "other.md"])
    for half in ("p.txt", "p.png"):
        fill(tmp_path / half, half, name)
        assert problems(tmp_path / half)["p"].startswith(f"{name} is of a kind")
    fill(tmp_path / "study", "1/a.png", "1/b.txt", f"1/{name}", "2/a.png", f"2/{name}", f"3/{name}", "2/README.md")
    found = problems(tmp_path / "study", "study")
    assert found.pop("1") is None
    assert found.pop("2").startswith(f"{name} is of a kind")
    assert not found
    assert pair_folder(tmp_path / "study", "study")[1] == [f"1/{name}", "2/README.md", f"3/{name}"]
    assert find_study(tmp_path / "study" / "1").problem is None
    assert find_study(tmp_path / "study" / "2").problem == problems(tmp_path / "study", "study")["2"]


def test_a_study_by_folder_names_what_of_it_is_not_read(tmp_path):
    fill(tmp_path, "1/a.png", "1/b.jxl", "1/c.txt", "2/x.jxl", "3/a.png", "3/c.txt", "3/labels.csv", "top.jxl")
    fill(tmp_path, *(f"4/{i}.nii" for i in range(9)))
    found = problems(tmp_path, "study")
    assert found.pop("3") is None
    assert {id: problem.partition(" of ")[0] for id, problem in found.items()} == {
        "1": "b.jxl is",
        "2": "x.jxl is",
        "4": "0.nii, 1.nii, 2.nii and 6 more are",
    }
    assert pair_folder(tmp_path, "study")[1] == ["3/labels.csv", "top.jxl"]
    assert find_study(tmp_path / "2").problem == problems(tmp_path, "study")["2"]


def test_auto_does_not_guess_by_files_that_are_not_read(tmp_path):
    cases = {
        "images": ["1/a.jxl", "1/b.jxl", "1/report.txt"],
        "report": ["1/a.png", "1/b.png", "1/report.pdf"],
        "top": ["1/a.png", "1/b.png", "1/report.txt", "c.jxl"],
    }
    for name, files in cases.items():
        root = fill(tmp_path / name, *files)
        with pytest.raises(MmfuseError, match=r"layout auto: \S+\.(jxl|pdf) is of a kind that is not read.*--layout"):
            pair_folder(root)
        assert any(problems(root, "stem").values())
        assert any(problems(root, "study").values()) == (name != "top")
    fill(tmp_path / "clear", "1/a.png", "1/b.png", "1/report.txt", "1/c.jxl", "2/x.pdf")
    assert pair_folder(tmp_path / "clear") == pair_folder(tmp_path / "clear", "study")


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("E.jpg", "e.txt"),
        ("a .jpg", "a.txt"),
        ("a.jpg", "a.jpg.txt"),
        ("a  b.jpg", "a b.txt"),
        ("a\u00a0b.jpg", "a b.txt"),
        ("a\u200b.jpg", "a.txt"),
        ("\uff41.jpg", "a.txt"),
        ("STRASSE.jpg", "straße.txt"),
    ],
)
def test_names_that_look_the_same_are_a_doubt(tmp_path, image, text):
    for folder in ("", "ward/"):
        root = fill(tmp_path / f"in {folder}", f"{folder}{image}", f"{folder}{text}", "b.png", "b.txt")
        said = {problem for problem in problems(root).values() if problem}
        assert len(problems(root)) == 3
        assert len(said) == 1
        assert "one study or several?" in said.pop()
        for name in (image, text):
            assert "one study or several?" in find_study(root / folder / name).problem
        assert find_study(root / "b").problem is None


@pytest.mark.parametrize(
    "names",
    [
        ["A.png", "A.txt", "a.png", "a.txt"],  # both whole
        ["A.png", "a.png"],  # no report anywhere
        ["A.txt", "a.txt"],
        ["film_1.jpg", "film-1.txt"],
        ["a1.jpg", "a.txt"],
        ["Ward/a.jpg", "ward/a.txt"],
    ],
)
def test_names_that_differ_enough_or_studies_that_are_whole_are_no_doubt(tmp_path, names):
    assert set(problems(fill(tmp_path, *names), "stem").values()) == {None}


def test_folders_that_look_the_same_are_a_doubt_too(tmp_path):
    fill(tmp_path, "P1/a.png", "P1/b.png", "p1 /report.txt", "p2/a.png", "p2/b.png", "p2/report.txt")
    found = problems(tmp_path, "study")
    assert found.pop("p2") is None
    assert set(found) == {"P1", "p1 "}
    assert set(found.values()) == {
        "one study or several? 'P1', 'p1 ' differ in case, spaces or suffixes alone; rename them"
    }


# --- study ---------------------------------------------------------------------------------------------------------


def test_each_folder_is_one_study(tmp_path):
    fill(
        tmp_path,
        "p1/s1/b.png",
        "p1/s1/a.jpg",
        "p1/s1/report.txt",
        "p1/s2/x.png",
        "p1/s2/z.txt",
        "p1/s2/y.txt",
        "p2/i.png",
    )
    fill(tmp_path, "README.txt", "p1/s1/meta.csv")
    expected = {
        "p1/s1": ["p1/s1/a.jpg", "p1/s1/b.png", "p1/s1/report.txt"],
        "p1/s2": ["p1/s2/x.png", "p1/s2/y.txt", "p1/s2/z.txt"],
        "p2": ["p2/i.png"],
    }
    assert summary(tmp_path, "study") == expected
    assert summary(tmp_path, "auto") == expected
    assert pair_folder(tmp_path)[1] == ["README.txt", "p1/s1/meta.csv"]


def test_texts_of_a_study_are_joined_by_a_blank_line_in_name_order(tmp_path):
    fill(tmp_path, "s/2.txt", text=b"Impression: normal.\r\n")
    fill(tmp_path, "s/1.txt", text=b"\nFindings: none.")
    fill(tmp_path, "s/3.txt", text=b" \n")
    ((entry,), _) = pair_folder(tmp_path, "study")
    assert entry.sample().text == "Findings: none.\n\nImpression: normal."


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["a.png", "a.txt"], "stem"),
        (["p1/a.png", "p1/a.txt", "p2/b.png", "p2/b.txt"], "stem"),  # a pair in each folder: the same by both rules
        (["p1/a.png", "p1/report.txt", "p2/b.png", "p2/report.txt"], "study"),
        (["p1/a.png", "p1/b.png", "p1/a.txt"], "study"),
        (["p1/a.png", "p1/a.txt", "p1/b.txt"], "study"),
        (["train/a.png", "train/a.txt", "train/b.png", "train/b.txt"], "stem"),
        (["train/a.png", "train/a.txt", "train/b.png", "train/b.txt", "train/c.png"], "stem"),
        (["normal/a.png", "normal/b.png", "sick/c.png"], "stem"),  # no report: each image is its own study
        (["images/a.png", "images/b.png", "reports/a.txt", "reports/b.txt"], "stem"),
        (["p1/a.png", "p1/b.png", "p1/report.txt", "c.png", "c.txt"], "stem"),  # an image beside the folders
        (["p1/a.png", "p1/b.png", "p1/report.txt", "README.txt"], "study"),
        (["p1/a.png", "p1/b.png", "p1/report.txt", "p2/a.png", "p2/a.txt", "p2/b.png", "p2/b.txt"], "stem"),
    ],
)
def test_auto(tmp_path, names, layout):
    fill(tmp_path, *names)
    assert pair_folder(tmp_path) == pair_folder(tmp_path, layout)
    other = {"stem": "study", "study": "stem"}[layout]
    if any("/" in name for name in names):
        assert pair_folder(tmp_path, layout) != pair_folder(tmp_path, other)


# --- texts are read late -------------------------------------------------------------------------------------------


def test_no_file_is_opened_while_pairing(tmp_path, monkeypatch):
    fill(tmp_path, "a.png", "a.txt")
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("a file was opened"))
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("a file was opened"))
    assert [entry.id for entry in pair_folder(tmp_path)[0]] == ["a"]


def test_sample(tmp_path):
    fill(tmp_path, "a.png", "a.txt", text="Größe normal.\n".encode("utf-16"))
    ((entry,), _) = pair_folder(tmp_path)
    images = (str(tmp_path / "a.png"),)
    assert entry == Entry("a", images, (str(tmp_path / "a.txt"),))
    assert entry.sample() == Sample(id="a", images=images, text="Größe normal.", group="a")


@pytest.mark.parametrize("text", [b"", b" \r\n\t", b"\xef\xbb\xbf"])
def test_empty_text_is_missing(tmp_path, text):
    fill(tmp_path, "a.png", "a.txt", text=text)
    sample = pair_folder(tmp_path)[0][0].sample()
    assert sample.text is None
    assert sample.problem is None


def test_image_alone_and_text_alone(tmp_path):
    fill(tmp_path, "image.png", "text.txt")
    image, text = (entry.sample() for entry in pair_folder(tmp_path)[0])
    assert (len(image.images), image.text, image.problem) == (1, None, None)
    assert (len(text.images), text.text, text.problem) == (0, "a report", None)


def test_unreadable_text_is_the_samples_problem(tmp_path):
    fill(tmp_path, "a.png", "a.txt", text=bytes(range(256)))
    os.symlink(tmp_path / "nowhere", tmp_path / "b.txt")
    os.mkfifo(tmp_path / "c.txt")
    a, b, c = (entry.sample() for entry in pair_folder(tmp_path)[0])
    assert a.problem == "text: binary, not text"
    assert b.problem == "text: no such file"
    assert c.problem == "text: not a regular file"
    assert a.text is None


# --- links and folders that cannot be read -------------------------------------------------------------------------


def test_link_loops_end(tmp_path):
    root = fill(tmp_path / "root", "a/b/x.png", "a/b/x.txt")
    fill(tmp_path, "outside/y.png", "neighbour/z.png")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "b" / "self").symlink_to(root / "a" / "b")
    (root / "parent").symlink_to(tmp_path)
    (root / "slash").symlink_to("/")
    (root / "self").symlink_to(root / "self")
    (root / "again").symlink_to(root / "a")
    (root / "out").symlink_to(tmp_path / "outside")
    assert summary(root) == {"a/b/x": ["a/b/x.png", "a/b/x.txt"], "out/y": ["out/y.png"]}


def test_folders_that_link_to_each_other_end(tmp_path):
    for name in "abcdefgh":
        fill(tmp_path, f"{name}/{name}.png")
        for other in "abcdefgh":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    assert summary(tmp_path) == {f"{name}/{name}": [f"{name}/{name}.png"] for name in "abcdefgh"}


def test_linked_files_are_files(tmp_path):
    fill(tmp_path, "store/1.png", "root/a.txt")
    (tmp_path / "root" / "a.png").symlink_to(tmp_path / "store" / "1.png")
    (tmp_path / "root" / "broken.png").symlink_to(tmp_path / "nowhere")
    assert summary(tmp_path / "root") == {"a": ["a.png", "a.txt"], "broken": ["broken.png"]}


def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path, monkeypatch):
    fill(tmp_path, "a.png", "ward/b.png")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).rstrip("/").endswith(refused):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(folder_module.os, "scandir", refuse)
    refused = "ward"
    a, ward = pair_folder(tmp_path)[0]
    assert a.id == "a"
    assert ward == Entry("ward/", problem="folder: permission denied")
    assert ward.sample().problem == "folder: permission denied"
    refused = str(tmp_path)
    with pytest.raises(MmfuseError, match="permission denied"):
        pair_folder(tmp_path)


def test_what_is_no_folder_of_studies_is_refused_in_one_line(tmp_path):
    fill(tmp_path, "file.txt", "empty/labels.csv", "flat/a.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    cases = {
        "missing": "no such",
        "file.txt": "not a directory",
        "empty": "no image and no report",
        "loop": "loop|links",
    }
    for name, reason in cases.items():
        with pytest.raises(
            MmfuseError, match=f"(?i){name}: .*({reason}).*; expected a folder of images .*png.*txt"
        ) as caught:
            pair_folder(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(MmfuseError, match="no sub-folder with an image or a report"):
        pair_folder(tmp_path / "flat", "study")
    with pytest.raises(MmfuseError, match="layout 'pairs': expected one of auto, stem, study"):
        pair_folder(tmp_path, "pairs")
    with pytest.raises(MmfuseError, match="null byte"):
        pair_folder("a\0b")


def test_path_or_string_relative_or_absolute(tmp_path, monkeypatch):
    fill(tmp_path, "d/a.png", "d/a.txt")
    monkeypatch.chdir(tmp_path)
    for folder in ("d", "./d/", tmp_path / "d", str(tmp_path / "d")):
        ((entry,), _) = pair_folder(folder)
        assert entry.id == "a"
        assert entry.sample().text == "a report"


# --- properties ----------------------------------------------------------------------------------------------------

name_parts = st.sampled_from(["a", "b", "c.d", "é", ".hidden", "x y"])
suffixes = st.sampled_from([".png", ".JPG", ".tiff", ".txt", ".Text", ".report", ".csv", "", ".db"])
trees = st.sets(
    st.tuples(st.lists(st.sampled_from(["p", "q", "r.png", ".h"]), max_size=3), name_parts, suffixes).map(
        lambda parts: "/".join([*parts[0], parts[1] + parts[2]])
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(trees, st.sampled_from(["auto", "stem", "study"]))
def test_every_file_is_in_one_study_or_ignored(tmp_path_factory, names, layout):
    root = fill(tmp_path_factory.mktemp("tree"), *names)
    visible = {name for name in names if not any(part.startswith(".") for part in name.split("/"))}
    of_use = {name for name in visible if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES + TEXT_SUFFIXES}
    try:
        entries, ignored = pair_folder(root, layout)
    except MmfuseError:
        assert not of_use or (layout == "study" and not any("/" in name for name in of_use))
        return
    used = [os.path.relpath(path, root) for entry in entries for path in entry.images + entry.texts]
    assert sorted(used + ignored) == sorted(visible)
    assert len({entry.id for entry in entries}) == len(entries)
    assert set(ignored) >= visible - of_use
    if layout != "study":
        assert {name for name in ignored if "/" in name} == {name for name in visible - of_use if "/" in name}
    for entry in entries:
        assert entry.images or entry.texts
        assert all(os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES for path in entry.images)
        sample = entry.sample()
        assert sample.id == sample.group == entry.id
        assert (sample.text is None) == (not entry.texts or entry.problem is not None)


def test_thousands_of_studies_are_paired_at_once(tmp_path):
    for i in range(5000):
        open(tmp_path / f"{i}.png", "wb").close()
        open(tmp_path / f"{i}.txt", "wb").close()
    start = time.process_time()
    assert len(pair_folder(tmp_path)[0]) == 5000
    assert time.process_time() - start < 1
