"""A store that does not answer: told once a retry, in finite time, and never at the cost of what the user has set."""

import itertools
import multiprocessing
import os
import re
import socket
import stat

import fsspec
import pytest

from mmfuse.data.files import stores
from mmfuse.data.files.locations import read_location
from mmfuse.data.files.read import read_bytes
from mmfuse.data.files.stores import FetchError, exists, list_sizes, patiently, put, watched, writing
from mmfuse.types import MmfuseError


@pytest.fixture
def silent(monkeypatch):
    """The address of a server that takes connections and never answers; all times are tenths of a second."""
    monkeypatch.setattr(stores, "PAUSES", (0.01, 0.02, 0.03))
    monkeypatch.setattr(stores, "READ", 0.2)
    monkeypatch.setattr(stores, "SILENCE", 0.05)
    fsspec.get_filesystem_class("http").clear_instance_cache()  # another test's client has its own times
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield f"127.0.0.1:{server.getsockname()[1]}"


def fetch(url):
    fsspec.config.conf["http"]["get_client"] = stores._http_client
    return patiently(lambda: read_bytes(url, 100), url)


def test_a_server_that_never_answers_is_told_once_a_retry(silent, capfd):
    url = f"http://{silent}/shards.json"
    with pytest.raises(FetchError):
        fetch(url)
    lines = capfd.readouterr().err.splitlines()
    retries = [line for line in lines if "attempt" in line]
    assert retries == [
        f"{url}: no answer (attempt {n} of 4), again in {pause:g} s" for n, pause in ((1, 0.01), (2, 0.02), (3, 0.03))
    ]
    waits = [line for line in lines if "attempt" not in line]
    assert waits
    assert all(re.fullmatch(rf"{re.escape(url)}: no answer for \d+ s", line) for line in waits)


def test_it_is_told_from_another_process_too(silent, capfd):
    """As of a DataLoader, or an actor of Ray."""
    process = multiprocessing.get_context("fork").Process(target=fetch, args=(f"http://{silent}/x",))
    process.start()
    process.join(60)
    assert process.exitcode == 1
    assert "no answer (attempt 3 of 4), again in 0.03 s" in capfd.readouterr().err


def test_s3_that_never_answers_ends_in_finite_time(silent, monkeypatch, capfd):
    """With the times of s3fs shortened; its attempts and ours are as always."""
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{silent}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 0.05)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)
    fsspec.filesystem("s3").clear_instance_cache()
    assert fsspec.config.conf["s3"]["config_kwargs"]["retries"]["total_max_attempts"] == 2  # botocore adds a mode
    with pytest.raises(MmfuseError, match=r"s3://bucket/x: cannot be listed"):
        list_sizes("s3://bucket/x")
    assert "s3://bucket/x: no answer for" in capfd.readouterr().err
    fsspec.filesystem("s3").clear_instance_cache()


def test_a_cells_url_is_given_up_as_soon(silent, capfd):
    """Its client is another one, which looks at each address first."""
    url = f"http://{silent}/film.png"
    with pytest.raises(FetchError, match="cannot be read"):
        read_location(url, 100, [f"http://{silent}"])
    assert f"{url}: no answer for" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer"),
        (ConnectionRefusedError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (RuntimeError("503, slow down\nand more"), "503, slow down"),
    ],
)
def test_each_retry_says_why(error, words, monkeypatch, capsys):
    monkeypatch.setattr(stores.time, "sleep", lambda seconds: None)
    turns = itertools.count()

    def sometimes():
        if next(turns) < 2:
            raise FetchError("cannot be fetched") from error
        return "found"

    assert patiently(sometimes, "s3://b/x") == "found"
    assert capsys.readouterr().err.splitlines() == [
        f"s3://b/x: {words} (attempt 1 of 4), again in 1 s",
        f"s3://b/x: {words} (attempt 2 of 4), again in 4 s",
    ]


def test_what_answers_and_what_is_local_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stores, "SILENCE", 0.0)
    with watched(str(tmp_path)), watched(f"file://{tmp_path}"):
        assert not exists(str(tmp_path / "x"))
    assert capsys.readouterr().err == ""


def test_what_the_user_set_is_kept(monkeypatch):
    mine = {"https": {"get_client": "mine"}, "s3": {"config_kwargs": {"retries": {"mode": "adaptive"}}, "anon": True}}
    monkeypatch.setattr(fsspec.config, "conf", mine)
    stores._wait_less()
    assert mine["https"] == {"get_client": "mine"}
    assert mine["s3"] == {"config_kwargs": {"retries": {"mode": "adaptive"}}, "anon": True}
    for name in ("AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE"):
        monkeypatch.setattr(fsspec.config, "conf", {})
        monkeypatch.setenv(name, "standard")
        stores._wait_less()
        assert "s3" not in fsspec.config.conf
        monkeypatch.delenv(name)


def test_a_write_that_fails_leaves_nothing_and_one_that_succeeds_follows_the_umask(tmp_path):
    with pytest.raises(MmfuseError, match="a: cannot be written"), writing(str(tmp_path / "a")) as handle:
        handle.write(None)
    assert list(tmp_path.iterdir()) == []
    before = os.umask(0o027)
    try:
        put(str(tmp_path / "b"), b"x")
        with writing(str(tmp_path / "c")) as handle:
            handle.write(b"x")
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {"b": 0o640, "c": 0o640}
