"""Public datasets in their own layout, a few rows each, written where they are needed."""

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmfuse.data.public.sources.chexpert import FINDINGS


def picture(path, number=0):
    """A small image whose colour depends on its path: no two are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.as_posix())) + number
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return path


def table(path, header, *lines):
    """A csv file, gzipped by its name, with quotes where they are needed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *lines] if header else lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = buffer.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def jsonl(path, *items):
    text(path, "".join(json.dumps(item) + "\n" for item in items))


# --- the downloads -------------------------------------------------------------------------------------------------


def open_i(root):
    def report(number, sections, images, major=("normal",)):
        parts = "".join(f'<AbstractText Label="{label}">{content}</AbstractText>' for label, content in sections)
        terms = "".join(f"<major>{term}</major>" for term in major)
        figures = "".join(
            f'<parentImage id="{image}"><figureId>F{i}</figureId><caption>Xray Chest</caption></parentImage>'
            for i, image in enumerate(images, start=1)
        )
        text(
            root / "ecgen-radiology" / f"{number}.xml",
            f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation><uId id="CXR{number}"/><MedlineCitation>'
            f"<Article><Abstract>{parts}</Abstract></Article></MedlineCitation><MeSH>{terms}"
            f"<automatic>Lung</automatic></MeSH>{figures}</eCitation>",
        )

    report(
        1,
        [
            ("COMPARISON", "None."),
            ("INDICATION", "Cough &amp; fever, 5 °C"),
            ("FINDINGS", "Heart\n  is large."),
            ("IMPRESSION", "Cardiomegaly."),
        ],
        ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"],
        ["Cardiomegaly/mild  ", "Cardiomegaly/borderline", "Opacity/lung/base/left"],
    )
    report(2, [("INDICATION", ""), ("FINDINGS", ""), ("IMPRESSION", "Normal.")], ["CXR2_IM-0652-1001"])
    report(3, [("FINDINGS", "Clear.")], ["CXR3_IM-1384-1001", "CXR3_IM-1384-2001"])  # the lateral is missing
    report(4, [("FINDINGS", "Clear.")], [])
    text(root / "ecgen-radiology" / "5.xml", "<eCitation><uId id='CXR5'/>")
    report(10, [("FINDINGS", "Fine."), ("INDICATION", "Pain")], ["CXR10_IM-0002-1001"])
    for name in ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0652-1001", "CXR3_IM-1384-1001"):
        picture(root / "NLMCXR_png" / f"{name}.png")
    picture(root / "NLMCXR_png" / "CXR10_IM-0002-1001.png")


LABELS = sorted(FINDINGS)  # the order of MIMIC's files


def mimic_cxr(root):
    studies = {  # study -> subject, split, images with view, chexpert's labels
        "50414267": ("10000032", "train", [("aa", "PA"), ("bb", "LATERAL")], {"Edema": "1.0", "Fracture": "-1.0"}),
        "53189527": ("10000032", "train", [("cc", "AP")], {"Edema": "0.0"}),
        "50000014": ("10000764", "validate", [("dd", "")], {"Edema": "1.0", "Fracture": "1.0"}),
        "50000028": ("11000007", "test", [("ee", "PA")], None),
        "50000035": ("11000011", "test", [("ff", "PA")], {"Edema": "1.0"}),
        "50000042": ("11000099", "train", [("gg", "PA")], {"Edema": "1.0"}),
    }
    split, views, labels = [], [], []
    for study, (subject, part, images, found) in studies.items():
        place = Path(f"p{subject[:2]}", f"p{subject}")
        for dicom, view in images:
            split.append([dicom, study, subject, part])
            views.append([dicom, subject, study, "CHEST (PA AND LAT)", view])
            picture(root / "files" / place / f"s{study}" / f"{dicom}.jpg")
        if found is not None:
            labels.append([subject, study, *(found.get(name, "") for name in LABELS)])
        report = " " * 33 + f"FINAL REPORT\n INDICATION:  Fièvre.\n\n FINDINGS: Study {study}.\n\n IMPRESSION: Edema.\n"
        text(root / "mimic-cxr-reports" / "files" / place / f"s{study}.txt", report)
    (root / "mimic-cxr-reports/files/p11/p11000011/s50000035.txt").unlink()
    split.append(["hh", "50000042", "11000099", "test"])  # an image of a study of train
    table(root / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"], *split)
    header = ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition"]
    table(root / "mimic-cxr-2.0.0-metadata.csv.gz", header, *views)
    for name in ("chexpert", "negbio"):
        table(root / f"mimic-cxr-2.0.0-{name}.csv.gz", ["subject_id", "study_id", *LABELS], *labels)


def chexpert(root):
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]

    def view(part, patient, study, name, projection, **labels):
        path = f"CheXpert-v1.0-small/{part}/{patient}/{study}/{name}.jpg"
        kind = "Lateral" if "lateral" in name else "Frontal"
        found = [labels.get(finding.replace(" ", "_"), "") for finding in FINDINGS]
        return [path, "Female", "68", kind, projection, *found]

    positive = {"No_Finding": "1.0", "Support_Devices": "1.0", "Edema": "-1.0", "Fracture": "0.0"}
    several = {"Edema": "1.0", "Fracture": "1.0", "Pneumonia": "1.0"}
    lines = [
        view("train", "patient00001", "study1", "view1_frontal", "AP", **positive),
        view("train", "patient00002", "study1", "view1_frontal", "AP", **several),
        view("train", "patient00002", "study1", "view2_lateral", "", **several),
        view("train", "patient00002", "study2", "view1_frontal", "PA"),
        view("train", "patient00003", "study1", "view1_frontal", "PA", Edema="1.0"),
        view("train", "patient00003", "study1", "view2_lateral", "", Edema="0.0"),
    ]
    valid = [view("valid", "patient64541", "study1", "view1_frontal", "AP", Edema="0.0")]
    table(root / "CheXpert-v1.0-small/train.csv", header, *lines)
    table(root / "CheXpert-v1.0-small/valid.csv", header, *valid)
    for line in (*lines, *valid):
        picture(root / line[0])
    (root / lines[3][0]).write_bytes(picture(root / lines[3][0]).read_bytes()[:200])  # a truncated JPEG


def roco_v2(root):
    for split, numbers in {"train": (1, 2, 3), "valid": (1,), "test": (1,)}.items():
        names = [f"ROCOv2_2023_{split}_{n:06d}" for n in numbers]
        captions = [[n, f'CT, axial: "ground\nglass", μ of {n}'] for n in names]
        table(root / f"{split}_captions.csv", ["ID", "Caption"], *captions)
        table(root / f"{split}_concepts.csv", ["ID", "CUIs"], *([n, "C0040405;C0817096"] for n in names[:2]))
        for name in names:
            picture(root / f"{split}_images" / split / f"{name}.jpg")
    (root / "train_images/train/ROCOv2_2023_train_000002.jpg").unlink()


def flickr8k(root):
    lines = [
        f"{name}#{i}\t{'Ein Hund , naïve' if i else 'A dog'} in {name} ."
        for name in (
            "1000268201_693b08cb0e.jpg",
            "1001773457_577c3a7d70.jpg",
            "2258277193_586949ec62.jpg.1",
            "44.jpg",
            "55.jpg",
        )
        for i in range(5)
    ]
    text(root / "Flickr8k_text/Flickr8k.token.txt", "\n".join(lines) + "\n")
    text(root / "Flickr8k_text/Flickr_8k.trainImages.txt", "1000268201_693b08cb0e.jpg\n")
    text(root / "Flickr8k_text/Flickr_8k.devImages.txt", "1001773457_577c3a7d70.jpg\n")
    text(root / "Flickr8k_text/Flickr_8k.testImages.txt", "55.jpg\n")
    for name in ("1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg", "44.jpg", "55.jpg"):
        picture(root / "Flickr8k_Dataset/Flicker8k_Dataset" / name)


def flickr30k(root):
    text(
        root / "flickr30k_images/results.csv",
        "image_name| comment_number| comment\n"
        '1000092795.jpg| 0| Two young guys , "outside" .\n1000092795.jpg| 1| Zwei Männer .\n'
        "2199200615.jpg| 3| A dog .\n2199200615.jpg| 4   A dog runs across the grass .\nnonsense\n3.jpg| 0| Gone .\n",
    )
    for name in ("1000092795.jpg", "2199200615.jpg"):
        picture(root / "flickr30k_images/flickr30k_images" / name)


def coco_captions(root):
    for split, ids in {"train": (9, 25), "val": (139,)}.items():
        images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 8, "width": 8} for i in (*ids, 1000 + ids[0])]
        pairs = [(i, k) for i in (*ids, 70 + len(ids)) for k in (0, 1)]  # the last is no image
        notes = [{"image_id": i, "id": 10 * i + k, "caption": f"A café number {i}, {k}.\n"} for i, k in pairs]
        text(root / f"annotations/captions_{split}2017.json", json.dumps({"images": images, "annotations": notes}))
        for image in images:
            picture(root / f"{split}2017" / image["file_name"])
    (root / "train2017/000000000025.jpg").unlink()


def mm_imdb(root):
    movies = {
        "0000005": {"title": "Blacksmith", "plot": ["Zorro.", "The longer plot, with “quotes”."], "genres": ["Short"]},
        "0000008": {"title": "B", "plot": ["Plot B."], "genres": ["Drama", "News"]},
        "0000010": {"title": None, "plot": None, "genres": ["Sci-Fi", "Film-Noir"]},
        "0000012": {"title": "D", "plot": ["Plot D."], "genres": ["Drama"]},
        "0000014": {"title": "E", "plot": ["Plot E."], "genres": ["Drama"]},
        "0000016": {"title": "F", "plot": "One plot.", "genres": "Drama"},
    }
    for name, movie in movies.items():
        text(root / f"mmimdb/dataset/{name}.json", json.dumps(movie))
        picture(root / f"mmimdb/dataset/{name}.jpeg")
    (root / "mmimdb/dataset/0000012.jpeg").unlink()
    split = {"train": ["0000005", "0000008"], "dev": ["0000010"], "test": ["0000012", "9999999", "0000016"]}
    text(root / "mmimdb/split.json", json.dumps(split))


def hateful_memes(root):
    def meme(number, label=None, content="a text"):
        found = {} if label is None else {"label": label}
        return {"id": number, "img": f"img/{number:05d}.png", "text": content} | found

    jsonl(
        root / "train.jsonl", meme(42953, 0, "its their character\nnot \u2028 their colour"), meme(23058, 1), meme(1, 1)
    )
    jsonl(root / "dev_seen.jsonl", meme(8291, 1))
    jsonl(root / "dev_unseen.jsonl", meme(8291, 1), meme(46971, 0))
    jsonl(root / "test_seen.jsonl", meme(16395))
    for number in (42953, 23058, 8291, 46971, 16395):
        picture(root / f"img/{number:05d}.png")


def food101(root):
    rows = {
        "train": [
            ("apple_pie_0.jpg", 'Grandma\'s "best" Apple Pie, easy\nRecipe', "apple_pie"),
            ("waffles_7.jpg", "", "waffles"),
        ],
        "test": [("apple_pie_9.jpg", "Apfelküchlein", "apple_pie"), ("waffles_9.jpg", "Gone", "waffles")],
    }
    for split, lines in rows.items():
        table(root / f"texts/{split}_titles.csv", None, *lines)
        for file, _, dish in lines:
            picture(root / "images" / split / dish / file)
    (root / "images/test/waffles/waffles_9.jpg").unlink()
    picture(root / "images/train/apple_pie/apple_pie_1.jpg")  # without a title


def crisismmd(root):
    def lines(task, split, *rows):
        names = ["event_name", "tweet_id", "image_id", "tweet_text", "image"]
        names += ["label", "label_text", "label_image", "label_text_image"]
        body = []
        for tweet, number, content, labels in rows:
            image = f"data_image/hurricane_irma/10_9_2017/{tweet}_{number}.jpg"
            body.append(["hurricane_irma", tweet, f"{tweet}_{number}", content, image, labels[0], *labels, "Positive"])
        table_text = "".join("\t".join(line) + "\n" for line in [names, *body])
        text(root / f"crisismmd_datasplit_all/task_{task}_text_img_{split}.tsv", table_text)

    yes, no = ("informative", "informative"), ("not_informative", "informative")
    quote = 'RT @a: "Irma 🌀 is near, https://t.co/x'
    lines("informative", "train", ("9051", "0", quote, yes), ("9051", "1", quote, no), ("9052", "0", "Lost", yes))
    lines("informative", "dev", ("9060", "0", "b", yes))
    lines("informative", "test", ("9070", "0", "c", no))
    lines("humanitarian", "train", ("9051", "0", quote, ("affected_individuals", "vehicle_damage")))
    lines("humanitarian", "dev")
    lines("humanitarian", "test", ("9060", "0", "b", ("not_humanitarian", "not_humanitarian")))
    for split in ("train", "dev", "test"):
        lines("damage", split, *([("9080", "0", "only damage", ("mild_damage", ""))] if split == "test" else []))
    with (root / "crisismmd_datasplit_all/task_damage_text_img_dev.tsv").open("a") as handle:
        handle.write("hurricane_irma\t9099\n")
    path = root / "crisismmd_datasplit_all/task_informative_text_img_dev.tsv"
    text(path, path.read_text() + path.read_text().splitlines()[1] + "\n")  # its line once more
    for name in ("9051_0", "9051_1", "9060_0", "9070_0", "9080_0"):
        picture(root / f"CrisisMMD_v2.0/data_image/hurricane_irma/10_9_2017/{name}.jpg")


def n24news(root):
    def article(number, section, **more):
        item = {"section": section, "headline": f"Headline {number}", "image_id": f"img{number}", "abstract": "Résumé."}
        item |= {"caption": "A picture.", "body": "Body.", "article_id": f"a{number}", "article_url": "https://x/y"}
        return item | more

    items = {
        "train": [article(1, "Science"), article(2, "Dance", headline=None), article(3, "Dance")],
        "dev": [article(4, "Science", image_id="")],
        "test": [article(5, "Dance")],
    }
    for split, found in items.items():
        text(root / f"news/nytimes_{split}.json", json.dumps(found))
    for number in (1, 2, 5):
        picture(root / f"imgs/img{number}.jpg")


def roco_v1(root):
    for split, number in (("train", 2), ("validation", 4), ("test", 1)):
        place, name = root / "data" / split / "radiology", f"ROCO_{number:05d}"
        gone = f"{name}9"
        text(place / "captions.txt", f"{name}\t Axial MRI of {name}, 5 µm.\n{gone}\t Gone.\nno tab\n")
        text(place / "cuis.txt", f"{name}\t\tC0040395\tC0011334\n{gone}\t\n")
        links = [f"{n}\twget -r ftp://x.org/pub/PMC{n[-3:]}.tar.gz -O PMC.tar.gz\tfig-{n}.jpg\n" for n in (name, gone)]
        text(place / "dlinks.txt", "".join(links))
        picture(place / "images" / f"PMC{name[-3:]}_fig-{name}.jpg")
    text(root / "data/test/non-radiology/captions.txt", "ROCO_00007\t A chart.\n")
    picture(root / "data/test/non-radiology/images/ROCO_00007.jpg")


WRITERS = {f.__name__: f for f in (open_i, mimic_cxr, chexpert, roco_v2, flickr8k, flickr30k, coco_captions)}
WRITERS |= {f.__name__: f for f in (mm_imdb, hateful_memes, food101, crisismmd, n24news, roco_v1)}
