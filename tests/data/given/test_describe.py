"""What is described of rows that a caller holds."""

import datasets
import pytest
from PIL import Image

from mmfuse.data.given import Named, described
from mmfuse.types import MmfuseError


@pytest.fixture
def captions(tmp_path) -> datasets.Dataset:
    """Ten pictures with three captions each."""
    for number in range(10):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = [
        (f"{n}#{k}", str(tmp_path / f"{n}.png"), f"a red square of shade {n} that is seen {k} times")
        for n in range(10)
        for k in range(3)
    ]
    ids, images, texts = zip(*rows, strict=True)
    made = datasets.Dataset.from_dict({"id": list(ids), "image": list(images), "caption": list(texts)})
    return made.cast_column("image", datasets.Image())


def test_captions_of_one_picture_are_of_one_group(captions):
    with described(captions, Named(target="caption")) as found:
        manifest = found.guess.manifest
        assert (manifest["group"], manifest["image"], "text" in manifest) == ("content", {"column": "image"}, False)
        assert manifest["tasks"] == {"caption": {"type": "captioning", "column": "caption"}}
        assert "group: content: 20 of 30 rows repeat an image of image" in found.said()


@pytest.mark.parametrize("key", ["image", "text"])
def test_a_modality_that_is_no_column_is_refused(captions, key):
    with (
        pytest.raises(MmfuseError, match=f"{key}: the name of a column, a list of names"),
        described(captions, Named("caption", **{key: [3]})),
    ):
        pass
