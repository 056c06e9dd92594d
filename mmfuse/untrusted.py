"""What a model folder, which may be somebody else's, can say to the libraries that build a model of it.

Configs are cut down to numbers and plain words of architectures that transformers itself brings: what names files,
repositories or code is left out of a model's config, and refused in a tokenizer's.
"""

from __future__ import annotations

import base64
import inspect
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from mmfuse.types import MmfuseError, first_line

LARGEST_NUMBER = 10**9
"""Of a text architecture's numbers: a vocabulary, a base of rotations."""
_MAX_JSON_BYTES = 100 * 2**20
_DEPTH = 5
_SETTING = re.compile(r"[^/\\.:]{0,100}")
_WORD = re.compile(r"(?!\.)[A-Za-z0-9_.+-]{0,100}")
_ATTENTION = ("eager", "sdpa")
"""Torch's own: the others are packages, or kernels that transformers fetches from the Hub."""
_NO_PART = (
    *("auto_map", "architectures", "dtype", "torch_dtype", "transformers_version", "name_or_path", "tokenizer_class"),
    *("id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "finetuning_task"),
    *("attn_implementation", "experts_implementation", "quantization_config", "torchscript", "trust_remote_code"),
)
"""What a config says beside the architecture: of files, repositories, code, classifiers, and how it is computed."""
_FETCHERS = ("get_kernel", "lazy_load_kernel", "load_cuda_kernels", "is_ninja_available")
_MOST_GROWTH = 100_000
"""Characters that a tokenizer may make of one character: those that people use make fewer than a hundred."""
_NAMES_FILES = {
    *("vocab", "merges", "file", "files", "path", "paths", "dir", "folder", "repo", "url", "revision", "commit", "map"),
    *("spm", "bpe", "dict", "trust", "remote", "code", "module", "import", "object", "kwargs", "inputs"),
}
"""Words of the keys of a tokenizer's settings whose values are opened, fetched or run."""


def check_files(folder: Path) -> None:
    """Refuse what is not a model folder's own: links out of it, what blocks who opens it, what may not be read.

    A snapshot of the Hub's cache consists of links to the cache's blobs, and these are its own.

    Raises:
        MmfuseError: The message names the file.
    """
    root = folder.resolve()
    homes = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]
    for path in _entries(folder):
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # a link to nothing, or to itself
            target = Path(os.path.realpath(path))
        own = any(target.is_relative_to(home) for home in homes) and not path.is_dir()
        if path.is_symlink() and not own:
            raise MmfuseError(f"{path}: a link out of the model folder is not followed: put the file in its place")
        if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            raise MmfuseError(f"{path}: damaged: not a regular file")


def _entries(folder: Path) -> Iterator[Path]:
    """All in a model folder, and in its folders of tokenizers and exported forms, links to folders not followed."""
    pending = [folder]
    while pending:
        try:
            entries = sorted(os.scandir(pending.pop()), key=lambda entry: entry.name)
        except FileNotFoundError:  # an export beside this process had it, and has ended
            continue
        except PermissionError as error:
            raise MmfuseError(f"{error.filename}: cannot be read") from error
        for entry in entries:
            path = Path(entry.path)
            own = str(path.relative_to(folder))
            if entry.is_dir(follow_symlinks=False) and ("tokenizer" in own or own.startswith("exported")):
                pending.append(path)
            yield path


def check_readable(path: Path) -> None:
    """Refuse a file that may not be read, by that name: libraries call it missing.

    Raises:
        MmfuseError: The message names the file.
    """
    try:
        if path.is_file():  # a FIFO would block
            path.open("rb").close()
    except PermissionError as error:
        raise MmfuseError(f"{path}: cannot be read ({error.strerror})") from error
    except (OSError, ValueError):
        pass  # whoever reads it says what is wrong with it


def check_architecture(config_class: type, model_class: Any = None) -> None:
    """Refuse architectures whose towers are other libraries' or other models', or that fetch or compile code.

    Args:
        config_class: Of transformers.
        model_class: What is built of it, where that is known.

    Raises:
        MmfuseError: It is one of these.
    """
    kind = getattr(config_class, "model_type", config_class.__name__)
    if not config_class.__module__.startswith("transformers."):
        raise MmfuseError(f"model_type {kind!r} is none of transformers' own")
    backbone = [name for name in inspect.signature(config_class.__init__).parameters if "backbone" in name]
    if backbone or getattr(config_class, "sub_configs", None):
        raise MmfuseError(f"a {kind} model has other models as its parts, and is not a language model")
    module = sys.modules.get(getattr(model_class, "__module__", ""))
    if any(hasattr(module, name) for name in _FETCHERS):
        raise MmfuseError(f"a {kind} model fetches or compiles code while it is built, which mmfuse never does")


def architecture_of(config: PreTrainedConfig) -> dict[str, Any]:
    """What `config_of` builds a config with the same architecture from; JSON, without a word of where it came from."""
    return {name: value for name, value in config.to_dict().items() if name == "model_type" or _is_part(name, config)}


def config_of(architecture: Mapping[str, Any]) -> PreTrainedConfig:
    """A transformers config from what a model folder says of its architecture.

    Args:
        architecture: As `architecture_of` gives it, and as older versions and strangers may have written it.

    Raises:
        MmfuseError: The model type is not transformers' own, or an option is neither a number nor a plain word.
    """
    kind = architecture["model_type"]
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise MmfuseError(f"model_type {str(kind)[:60]!r}: transformers has no such architecture")
    config_class: Any = CONFIG_MAPPING[kind]
    check_architecture(config_class)
    known = {*config_class().to_dict(), *config_class.attribute_map}
    options = {}
    for name, value in architecture.items():
        if name == "model_type" or not _is_part(name, config_class):
            continue
        if name in known:
            _check_plain(name, value)
        elif isinstance(value, dict) or not _is_plain(value):  # of another version, or a stranger's
            continue
        options[name] = value
    if architecture.get("attn_implementation") in _ATTENTION:
        options["attn_implementation"] = architecture["attn_implementation"]
    return AutoConfig.for_model(kind, **options)


def _is_part(name: str, config: Any) -> bool:
    """Whether a key of a config is part of the architecture: no note of its origin, and no method or property."""
    if name.startswith("_") or name in _NO_PART:
        return False
    kind = config if isinstance(config, type) else type(config)
    own = inspect.getattr_static(kind, name, None)
    return not (callable(own) or isinstance(own, (property, classmethod, staticmethod)))


def _check_plain(name: str, value: Any) -> None:
    if not _is_plain(value):
        raise MmfuseError(
            f"text architecture.{name} {value!r:.60}: numbers of at most {LARGEST_NUMBER} and plain words are expected"
        )


def _is_plain(value: Any, depth: int = _DEPTH) -> bool:
    """Numbers that are no bombs, words that are no paths, and lists and mappings of them."""
    if isinstance(value, (bool, float)) or value is None:
        return True
    if isinstance(value, int):
        return abs(value) <= LARGEST_NUMBER
    if isinstance(value, str):
        return bool(_WORD.fullmatch(value))
    if depth and isinstance(value, (list, tuple)):
        return all(_is_plain(item, depth - 1) for item in value)
    return bool(depth and isinstance(value, dict)) and all(
        _is_plain(str(name), 0) and _is_plain(item, depth - 1) for name, item in value.items()
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder of a model folder; nothing outside it is read, and none of its code is run.

    Raises:
        MmfuseError: A file is missing, damaged, or names files or code.
    """
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        name = folder.name if not folder.is_dir() else f"{folder.name}/{settings.name}"
        raise MmfuseError(f"{folder.parent}: the model folder is incomplete: {name} is missing")
    if os.path.lexists(folder / "config.json"):
        raise MmfuseError(f"{folder}/config.json: a tokenizer has none, and it could name another's")
    for path in sorted(folder.iterdir()):
        check_readable(path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):  # both reach the tokenizer's constructor
        if (folder / name).is_file():
            _check_settings(folder / name)
    _check_growth(folder / "tokenizer.json")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its parsers do
        raise MmfuseError(f"{folder}: damaged: {reason(error)}") from error


def _check_settings(path: Path) -> None:
    """Refuse a setting that names files or code: the constructor would open them wherever they are."""
    try:
        with path.open("rb") as file:
            settings = dict(json.loads(file.read(_MAX_JSON_BYTES).decode("utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise MmfuseError(f"{path.parent}: damaged: {path.name}: {first_line(error)}") from error
    for key, value in settings.items():
        if value in (None, [], {}) or (key == "vocab_size" and isinstance(value, int)):
            continue
        if key == "auto_map":
            raise MmfuseError(f"{path}: auto_map: this tokenizer comes with its own code, which mmfuse never runs")
        if _is_named(key, value) or not _is_setting(key, value):
            raise MmfuseError(
                f"{path}: {key[:60]!r} names files or code, or is not a value that transformers saves there"
            )


def _check_growth(path: Path) -> None:
    """Refuse replacements that make gigabytes of a word: the memory would be full in a library that then aborts."""
    try:
        tokenizer = dict(json.loads(path.read_bytes())) if path.is_file() else {}
        growth = math.prod(_growth(tokenizer.get(part)) for part in ("normalizer", "pre_tokenizer"))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MmfuseError(f"{path.parent}: damaged: {path.name}: {first_line(error)}") from error
    if growth > _MOST_GROWTH:
        raise MmfuseError(f"{path}: makes more than {_MOST_GROWTH:,} characters of one")


def _growth(part: Any) -> int:
    """How many characters a normalizer or pre-tokenizer makes of one, at most."""
    if part is None:
        return 1
    parts = part.get("normalizers", []) + part.get("pretokenizers", [])
    own = {"ByteLevel": 4, "NFKD": 18, "NFKC": 18}.get(part["type"], 1)  # of UTF-8, and of U+FDFA
    if part["type"] == "Replace":
        pattern = part["pattern"].get("String")
        own = len(part["content"]) // len(pattern) if pattern else 1 + len(part["content"])
    elif part["type"] == "Precompiled":
        table = base64.b64decode(part["precompiled_charsmap"] or "")  # the size of a trie, it, and what it points to
        own = max(map(len, table[4 + int.from_bytes(table[:4], "little") :].split(b"\0")))
    return max(1, own) * math.prod(map(_growth, parts))


def _is_named(key: str, value: Any) -> bool:
    """Whether a setting's value may be opened, fetched or run."""
    words = key.lower().split("_")
    if isinstance(value, bool):
        return words[-1] in _NAMES_FILES
    if _is_vocabulary(value) and {"vocab", "merges"} & set(words):
        return False
    return key.startswith("_") or not _NAMES_FILES.isdisjoint(words)


def _is_setting(key: str, value: Any) -> bool:
    """A switch, a number, a plain word, tokens, or a vocabulary itself."""
    if key.endswith(("_token", "_tokens")) or key in ("added_tokens_decoder", "never_split"):
        return _is_tokens(value)
    if key == "chat_template":  # compiled in a sandbox, and only when it is used
        return isinstance(value, (str, list, dict))
    if isinstance(value, str):
        return bool(_SETTING.fullmatch(value))
    return isinstance(value, (bool, int, float)) or _is_vocabulary(value)


def _is_vocabulary(value: Any) -> bool:
    """Words, with or without numbers, or pairs of words."""
    if isinstance(value, dict):
        return all(isinstance(number, (int, float)) for number in value.values())
    return isinstance(value, list) and all(
        isinstance(item, (str, int))
        or (isinstance(item, list) and all(isinstance(word, (str, int, float)) for word in item))
        for item in value
    )


def _is_tokens(value: Any, depth: int = 2) -> bool:
    if isinstance(value, (str, bool)):
        return True
    if isinstance(value, dict) and "content" in value:
        return all(isinstance(item, (str, bool)) for item in value.values())
    items = value.values() if isinstance(value, dict) else value
    return bool(depth) and isinstance(value, (list, dict)) and all(_is_tokens(item, depth - 1) for item in items)


def reason(error: Exception) -> str:
    """What transformers says of a repository that it cannot load, in one line."""
    said = first_line(error)
    if "trust_remote_code" in str(error):
        return "it comes with its own code, which mmfuse never runs"
    return said[:160]
