"""Files, cells and texts of features: what they become, and what is refused."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

from mmfuse.data.readers.features import (
    FeatureOptions,
    as_bytes,
    as_text,
    from_text,
    numbers_of,
    read_features,
    read_keyed,
)
from mmfuse.data.readers.images import ImageError
from mmfuse.types import MmfuseError

ANY = FeatureOptions()
VECTOR, TOKENS = np.array([0.5, -1.25, 3.0]), np.arange(6.0).reshape(2, 3)


def npy(array, **options):
    handle = io.BytesIO()
    np.save(handle, array, **options)
    return handle.getvalue()


def npz(pack=np.savez, **arrays):
    handle = io.BytesIO()
    pack(handle, **arrays)
    return handle.getvalue()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f8", np.int16])
@pytest.mark.parametrize("array", [VECTOR, TOKENS, np.asfortranarray(TOKENS)], ids=["vector", "tokens", "fortran"])
def test_every_format_gives_the_same_array(tmp_path, array, kind):
    array = array.astype(kind)
    wanted = array.reshape(-1, 3).astype(np.float32)
    sources = {"a.npy": npy(array), "a.npz": npz(x=array), "b.npz": npz(np.savez_compressed, x=array)}
    if array.dtype.isnative and array.flags.c_contiguous:
        sources["a.safetensors"] = save({"x": array})
    for name, data in sources.items():
        (tmp_path / name).write_bytes(data)
        for source in (data, str(tmp_path / name)):
            found = read_features(source, FeatureOptions(3))
            assert found.dtype == np.float32
            assert found.flags.c_contiguous
            assert np.array_equal(found, wanted)
    assert np.array_equal(read_features(array, ANY), wanted)
    encoded = as_bytes(wanted)
    assert encoded == as_bytes(wanted.copy())
    assert np.array_equal(from_text(as_text(encoded), ANY), wanted)


def test_one_array_of_several_is_named():
    several = npz(a=VECTOR, b=TOKENS)
    assert read_features(several, FeatureOptions(array="b")).shape == (2, 3)
    with pytest.raises(ImageError, match=r"it holds 2 arrays: name one as features\.array: a, b"):
        read_features(several, ANY)
    with pytest.raises(ImageError, match="it holds no array 'c', but a, b"):
        read_features(several, FeatureOptions(array="c"))


class Opens:
    def __reduce__(self):
        return open, ("/tmp/mmfuse_was_run", "w")


def bomb():
    """A member of 64 GiB of zeros would be a few MB; here its header alone promises it."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**34,)})
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 4096)
    return header.getvalue(), handle.getvalue()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (npy(np.array([Opens()]), allow_pickle=True), "damaged|an array of object"),
        (npz(x=np.array([Opens()], dtype=object)), "damaged|an array of object"),
        (pickle.dumps(VECTOR), "no file of arrays"),
        (bomb()[0], "damaged: it is cut short"),
        (bomb()[1], "damaged: it is cut short"),
        (npy(VECTOR)[:-4], "damaged"),
        (npz(x=VECTOR)[:-30], "damaged"),
        (save({"x": VECTOR})[:20], "no file of arrays"),
        (b"", "no file of arrays"),
        (npy(np.array("text")), "an array of <U4; numbers are expected"),
        (npy(np.zeros((2, 3, 4))), r"an array of shape \[2, 3, 4\]"),
        (npy(np.zeros(0)), r"an array of shape \[0\]"),
        (npy(np.array(1.0)), r"an array of shape \[\]"),
        (npy(np.array([1.0, np.nan])), "NaN or an infinite number"),
        (npy(np.array([1e300, 1.0])), "NaN or an infinite number"),
    ],
)
def test_what_is_no_features_is_refused(source, said):
    with pytest.raises(ImageError, match=said):
        read_features(source, ANY)
    with pytest.raises(ImageError, match=said):
        from_text(as_text(source), ANY)


def test_a_url_is_not_read_unless_it_is_permitted():
    with pytest.raises(ImageError, match="https"):
        read_features("https://example.org/a.npy", ANY)


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("3.5", [[3.5]]),
        ("-1e3", [[-1000]]),
        ([1, 2.5], [[1, 2.5]]),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("[1, 2.5]", [[1, 2.5]]),
        (" [[1, 2]] ", [[1, 2]]),
        ("scan.npy", None),
        ("[a, b]", None),
    ],
)
def test_cells(cell, wanted):
    found = numbers_of(cell, None)
    assert wanted is None if found is None else np.array_equal(found, np.array(wanted, np.float32))


@pytest.mark.parametrize("cell", [["a"], [[1], [1, 2]], {"a": 1}, b"a", "nan", "[1, NaN]", [[[1]]]])
def test_cells_that_are_refused(cell):
    with pytest.raises(MmfuseError):
        numbers_of(cell, None)


def test_a_file_by_id_is_read_anew_when_it_has_changed(tmp_path):
    path = tmp_path / "all.npz"
    path.write_bytes(npz(a=VECTOR, b=TOKENS, c=np.zeros(7)))
    found = read_keyed(str(path), ["a", "b", "absent"], 3)
    assert {name: array.shape for name, array in found.items()} == {"a": (1, 3), "b": (2, 3)}
    with pytest.raises(MmfuseError, match=r"all\.npz: 'c': 7 numbers in a vector; 3 are expected"):
        read_keyed(str(path), ["c"], 3)
    path.write_bytes(npz(a=VECTOR + 1))
    assert np.array_equal(read_keyed(str(path), ["a"], 3)["a"], [VECTOR + 1])
    path.write_bytes(b"nothing")
    with pytest.raises(MmfuseError, match=r"all\.npz: no file of arrays"):
        read_keyed(str(path), ["a"], 3)
    with pytest.raises(MmfuseError, match=r"none\.npz: no such file"):
        read_keyed(str(tmp_path / "none.npz"), ["a"], 3)
