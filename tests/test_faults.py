"""What nobody expected is one line too: of each library, an exception as it raises it, planted at a call."""

import codecs
import errno
import io
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mmfuse.cli.faults import tell
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.types import MmfuseError

GO_ON = "the same command resumes"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A config of seconds, over a phantom of 30."""
    root = tmp_path_factory.mktemp("world")
    write_phantom(root / "phantom", 30, seed=0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {
        "name": "tiny",
        "data": {"manifest": str(root / "phantom" / "manifest.yaml"), "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "options": sizes, "max_length": 16},
        "fusion": {"name": "text_only", "out_dim": 16},
        "training": {"epochs": 1, "max_steps": 1, "batch_size": 16, "trackers": []},
    }
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    return root


@pytest.fixture(autouse=True)
def _tracebacks(monkeypatch, tmp_path):
    """They are kept in the test's own folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def raised(call):
    """The exception of a call, as the library raises it."""
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def of_safetensors():
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, "/nowhere/x.safetensors")


def of_tokenizers():
    from tokenizers import Tokenizer

    Tokenizer.from_str("{}")


def of_pyarrow():
    import pyarrow.parquet as pq

    pq.read_table(io.BytesIO(b"no parquet at all"))


def of_pillow():
    from PIL import Image

    Image.open(io.BytesIO(b"no image"))


def of_omegaconf():
    from omegaconf import OmegaConf

    OmegaConf.create({"a": "${b"}).a  # noqa: B018


def of_transformers():
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained("no/such-model-anywhere")


def of_hub():
    from huggingface_hub import hf_hub_download

    hf_hub_download("no/such-model-anywhere", "x")


def of_sklearn():
    from sklearn.linear_model import LogisticRegression

    LogisticRegression().fit([[1.0], [2.0]], [1, 1])


def of_nltk():
    import nltk

    nltk.data.find("corpora/no_such_corpus")


def of_matplotlib():
    import matplotlib

    matplotlib.rcParams["backend"] = "nonsense"


def of_filelock():
    from filelock import FileLock

    path = Path(tempfile.gettempdir()) / "lock"
    with FileLock(path):
        FileLock(path, timeout=0).acquire()


def of_ray():
    from ray.exceptions import RayError

    raise RayError("the actor died\nand this is Ray's traceback")


def of_state_dict():
    torch.nn.Linear(2, 2).load_state_dict({"weight": torch.ones(3, 3)})


def of_batch_norm():
    torch.nn.BatchNorm1d(2)(torch.ones(1, 2))


def a_worker(message):
    def call():
        raise RuntimeError(message)

    return call


def no_room():
    raise OSError(errno.ENOSPC, "No space left on device")


LIBRARIES = {
    of_safetensors: "SafetensorError: .*No such file",
    of_tokenizers: "Exception: ",
    of_pyarrow: "ArrowInvalid: .*Parquet magic bytes",
    of_pillow: "cannot identify image file",
    of_omegaconf: "GrammarParseError: ",
    lambda: yaml.safe_load("a: [1"): "ParserError: while parsing a flow sequence",
    of_transformers: "couldn't connect to",
    of_hub: "",
    of_sklearn: "ValueError: This solver needs samples of at least 2 classes",
    of_nltk: "LookupError: Resource .*no_such_corpus",
    of_matplotlib: "MPLBACKEND: .*nonsense",
    of_filelock: "could not be acquired",
    of_ray: "RayError: the actor died",
    of_state_dict: r"Error\(s\) in loading state_dict .*--restart",
    of_batch_norm: "image_encoder.batch_norm=frozen, or another image_encoder.size or training.batch_size",
    lambda: codecs.lookup("no-such-codec"): "unknown encoding: no-such-codec",
    lambda: b"\xff".decode("utf-8"): "no utf-8 .*invalid start byte",
    lambda: "\udcff".encode(): "no utf-8 .*surrogates not allowed",
    lambda: np.empty(2**45): f"the memory is full: .*{GO_ON}",
    lambda: torch.empty(2**60): f"the memory is full: .*{GO_ON}",
    no_room: f"No space left on device: the disk is full; .*{GO_ON}",
    a_worker("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are "
             "out of shared memory."): "shared memory .*--shm-size=8g.*data.num_workers=0",
    a_worker("DataLoader worker (pid 7) is killed by signal: Killed. "): "that reads images was killed, .*memory",
    a_worker("DataLoader worker (pid(s) 7, 8) exited unexpectedly"): "a process that reads images was killed",
    a_worker("[Errno 24] Too many open files"): "ulimit -n",
    a_worker("[/gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:9"): "another process of this launch ended",
}  # fmt: skip


@pytest.mark.parametrize("call", LIBRARIES, ids=lambda call: call.__name__)
def test_an_exception_of_a_library_is_one_line_with_code_2(mmfuse, monkeypatch, tmp_path, call):
    error = raised(call)
    monkeypatch.setattr("mmfuse.encoders.cache.list_cache", lambda root: (_ for _ in ()).throw(error))
    code, _, err = mmfuse("cache", "show", "--dir", tmp_path)
    (line,) = err.splitlines()
    assert re.match(f"error: .*{LIBRARIES[call]}", line)
    assert "Errno" not in line
    assert code == 2


def test_memory_of_a_gpu_is_told_with_what_lowers_it():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has\nmore lines")
    words = "batch_size .*accumulation.* training.gradient_checkpointing=true or training.mixed_precision=bf16"
    assert re.search(words, tell(error).line)


def test_a_bug_of_mmfuse_is_told_as_such_with_its_place_and_traceback(mmfuse, world, monkeypatch):
    monkeypatch.setattr("mmfuse.cli.cache._cache_line", None)  # so that calling it is a TypeError
    monkeypatch.setattr("mmfuse.encoders.cache.list_cache", lambda root: [0])
    code, _, err = mmfuse("cache", "show")
    (line,) = err.splitlines()
    found = re.fullmatch(
        r"error: a bug of mmfuse at cache.py:\d+, cache_show: TypeError: .* not callable; traceback: (\S+) .*", line
    )
    assert code == 1
    assert "TypeError" in Path(found.group(1)).read_text()
    assert Path(found.group(1)).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("how", ["--debug", "1", "0"])
def test_whoever_mends_it_sees_the_traceback(monkeypatch, how):
    from mmfuse import cli

    monkeypatch.setattr("mmfuse.encoders.cache.list_cache", lambda root: {}["x"])
    monkeypatch.setattr(sys, "argv", ["mmfuse", *(["--debug"] if how == "--debug" else []), "cache", "show"])
    monkeypatch.setenv("MMFUSE_DEBUG", how if how != "--debug" else "")
    with pytest.raises(SystemExit if how == "0" else KeyError):
        cli.main()


def test_where_no_file_can_be_kept_the_line_says_how_to_see_it(mmfuse, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    monkeypatch.setattr("mmfuse.encoders.cache.list_cache", lambda root: {}["x"])
    assert mmfuse("cache", "show")[2].endswith("; MMFUSE_DEBUG=1 shows the traceback\n")


def test_a_bug_in_a_process_of_a_dataloader_is_one_line_too():
    """Torch gives it the whole traceback as message."""
    from mmfuse.data.batches import pairs

    lines = [
        "Caught IndexError in DataLoader worker process 0.",
        "Original Traceback (most recent call last):",
        '  File "/x/torch/y.py", line 1, in z',
        f'  File "{pairs.__file__}", line 7, in _item',
        "    x[0]",
        "IndexError: list index out of range",
    ]
    told = tell(IndexError("\n".join(lines)))
    assert told.code == 1
    assert told.line.startswith(
        "a bug of mmfuse at pairs.py:7, _item: IndexError: list index out of range; traceback: "
    )


def test_a_place_in_a_plugin_is_named(mmfuse, world, tmp_path):
    """Whoever writes one sees where it failed."""
    (tmp_path / "own.py").write_text("import torch\n\ndef read():\n    torch.ones(2) @ torch.ones(3)\n\nread()\n")
    code, _, err = mmfuse("list", "fusions", "--plugin", tmp_path / "own.py")
    assert code == 2
    assert re.match(r"error: .*own.py", err)
    assert len(err.splitlines()) == 1


def full_disk(tensors, path):
    path.write_bytes(b"half")
    raise raised_by_safetensors(28)


def raised_by_safetensors(number):
    from safetensors import SafetensorError

    return SafetensorError(f"Error while serializing: I/O error: of the system (os error {number})")


def test_a_full_disk_at_a_checkpoint_is_one_line_and_the_same_command_goes_on(mmfuse, world, monkeypatch, tmp_path):
    command = ("train", world / "config.yaml", f"output_dir={tmp_path / 'run'}")
    with monkeypatch.context() as patched:
        patched.setattr("mmfuse.training.checkpoint.write_tensors", full_disk)
        code, _, err = mmfuse(*command)
    assert code == 2
    said = [line for line in err.splitlines() if line.startswith("error:")]
    assert said == [
        f"error: output_dir: {tmp_path / 'run'}: No space left on device; what is done is kept: "
        f"free some space, and {GO_ON}"
    ]
    assert mmfuse(*command)[0] == 0
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps if "samples" in step] == [1]
    files = [path for path in (tmp_path / "run").rglob("*.safetensors") if "checkpoints" in path.parts]
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask()}


def umask():
    import os

    os.umask(now := os.umask(0))
    return now


def test_a_full_disk_is_no_cells_fault(monkeypatch, tmp_path):
    """A benchmark ends, and does not write its cells off as failed."""
    from types import SimpleNamespace

    from mmfuse.benchmarking import run
    from mmfuse.training.checkpoint import FullDiskError, room_in

    def cell(*_):
        with room_in(tmp_path):
            raise raised_by_safetensors(28)

    monkeypatch.setattr(run, "run_cell", cell)
    monkeypatch.setattr(run, "_best_trial", lambda *_: {})
    ledger = SimpleNamespace(scratch=lambda cell: tmp_path, finish=lambda *_: pytest.fail("written off"))
    row = SimpleNamespace(fusion={}, interaction="", parameters=0, macs=0, matched=True)
    plan = SimpleNamespace(rows={"a": row})
    with pytest.raises(FullDiskError, match="No space left on device"):
        run._run(None, plan, ledger, SimpleNamespace(row="a", seed=0, fold=None, trial=None))


@pytest.mark.parametrize("number", [2, 5])
def test_what_is_no_full_disk_is_not_called_one(number, tmp_path):
    from safetensors import SafetensorError

    from mmfuse.training.checkpoint import room_in

    with pytest.raises(SafetensorError), room_in(tmp_path):
        raise raised_by_safetensors(number)


@pytest.mark.parametrize("file", ["weights.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_one_line(mmfuse, world, tmp_path, file):
    from mmfuse.training.checkpoint import Checkpoints

    step = tmp_path / "step_00000001"
    Checkpoints(tmp_path).save(1, {}, {"a": torch.ones(2)}, ({"0.x": torch.ones(1)}, {}), best=False)
    (step / file).write_bytes(b"half")
    with pytest.raises(MmfuseError, match=rf"{step}: damaged \(.*\); --restart discards the run"):
        Checkpoints(tmp_path).load_last()
    (tmp_path / "best_00000001.safetensors").write_bytes(b"")
    with pytest.raises(MmfuseError, match=r"best_00000001.safetensors: damaged"):
        Checkpoints(tmp_path).load_best({"best_file": "best_00000001.safetensors"})


@pytest.mark.parametrize(
    ("place", "error", "line"),
    [
        (
            "training.loop.Trainer.step",
            torch.OutOfMemoryError("CUDA out of memory.\nmore"),
            "the GPU's memory is full",
        ),
        ("training.loop.Feed", RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "killed"),
        ("training.run.plot_learning_curve", RuntimeError("no font\nat all"), r"RuntimeError: no font \(at"),
    ],
)
def test_a_planted_exception_of_training_is_one_line(mmfuse, world, monkeypatch, tmp_path, place, error, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(f"mmfuse.{place}", fail)
    code, _, err = mmfuse("train", world / "config.yaml", f"output_dir={tmp_path / 'run'}")
    (said,) = [each for each in err.splitlines() if each.startswith("error:")]
    assert err.endswith(said + "\n")
    assert re.search(line, said)
    assert code == 2
    assert "Traceback" not in err


def test_names_that_the_terminal_cannot_show_end_nothing(monkeypatch):
    from mmfuse import cli

    shown = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="strict")
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr("mmfuse.encoders.cache.list_cache", lambda root: [])
    monkeypatch.setattr(sys, "argv", ["mmfuse", "cache", "show", "--dir", "한글 \udcff"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert not leaving.value.code
    shown.flush()
    assert shown.buffer.getvalue().startswith(rb"\ud55c\uae00")


def test_the_locale_is_named_where_it_has_no_such_characters(monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    line = tell(raised(lambda: "a private report, naïve".encode("ascii"))).line
    assert re.search("outside ascii.*PYTHONUTF8=1, or .*LC_ALL=C.UTF-8", line)
    assert "private" not in line
