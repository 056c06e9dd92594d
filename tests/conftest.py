"""Every test runs offline, on one thread, and finds the real data through MMFUSE_TEST_DATA."""

import itertools
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Before torch is imported, and for the processes that tests start: sums are the same on one core and on many, and tests
# that run side by side do not take each other's cores.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# The same examples in every run, and no example fails for a slow machine; benchmarks/fuzz_*.py try new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


_HEAVY = {"object_store", "object_store_server", "ray_cluster", "run_child"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a server, or starts a process itself, is `heavy`; files say it of themselves."""
    for item in items:
        code = getattr(getattr(item, "function", None), "__code__", None)
        if _HEAVY & {*getattr(item, "fixturenames", ()), *(code.co_names if code else ())}:
            item.add_marker("heavy")


@pytest.fixture(autouse=True)
def _own_plugins(monkeypatch):
    """A plug-in that a test loads is not loaded by the workers of those that follow."""
    from mmfuse import registry

    monkeypatch.setattr(registry, "_PLUGINS", [])


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path_factory):
    """A connection to anywhere but this machine is an error; the feature cache is the test session's own."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test wants to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("MMFUSE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def object_store_server() -> Iterator[str]:
    """The endpoint of moto's S3, a server in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _store_variables(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


_BUCKETS = itertools.count()


@pytest.fixture
def object_store(object_store_server, monkeypatch) -> str:
    """The URL of a new, empty bucket; s3:// works in this process and in those that it starts."""
    for name, value in _store_variables(object_store_server).items():
        monkeypatch.setenv(name, value)
    import s3fs

    url = f"s3://test-{os.getpid()}-{next(_BUCKETS)}"
    s3fs.S3FileSystem().mkdir(url)
    return url


@pytest.fixture(scope="module")
def ray_cluster(object_store_server) -> Iterator[None]:
    """A Ray cluster with two CPUs for actors, which import this mmfuse and reach the object store."""
    import ray

    import mmfuse

    variables = {"PYTHONPATH": str(Path(mmfuse.__file__).parents[1]), **_store_variables(object_store_server)}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=128 * 2**20,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": variables},
    )
    yield
    ray.shutdown()


@pytest.fixture
def mmfuse(monkeypatch, capsys) -> Callable[..., tuple[Any, str, str]]:
    """Run a command line in this process: (exit code, what it printed, what it complained)."""
    from mmfuse import cli

    def run(*args: Any) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["mmfuse", *map(str, args)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        printed = capsys.readouterr()
        return leaving.value.code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with data/, pretrained/ and bad_inputs/; skips where MMFUSE_TEST_DATA does not name one."""
    root = os.environ.get("MMFUSE_TEST_DATA")
    if not root:
        pytest.skip("MMFUSE_TEST_DATA is not set: real data and real encoders are not tested")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def pretrained() -> Path:
    """The folder with minilm/ and efficientnet_lite0/; skips where MMFUSE_TEST_PRETRAINED does not name one."""
    root = os.environ.get("MMFUSE_TEST_PRETRAINED")
    if not root:
        pytest.skip("MMFUSE_TEST_PRETRAINED is not set: real encoders are not tested")
    return Path(root).resolve()
