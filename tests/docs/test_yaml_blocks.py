"""Every YAML block on the pages is legal: a whole manifest or config as it is, a fragment on top of the least one."""

import dataclasses
import re
from typing import get_type_hints

import pytest
import yaml
from doc_pages import PAGES, blocks, spans
from transformers import TrainingArguments

from mmfuse.benchmarking.config import BenchmarkConfig, load_benchmark_config
from mmfuse.config import Config, config_from_dict
from mmfuse.config.parsing import nested_in
from mmfuse.data.batches.change_texts import Synonyms
from mmfuse.data.tables.manifest import Manifest, load_manifest
from mmfuse.types import MmfuseError

LEAST_MANIFEST = {"name": "x", "rows": "x.csv", "id": "id", "text": {"columns": ["text"]}}
LEAST_CONFIG = {"name": "x", "data": {"manifest": "x.yaml"}}


def keys(schema):
    return {item.name for item in dataclasses.fields(schema)}


def check(text, folder):
    """What a block is taken for; an error where it is nothing, or not legal."""
    values = yaml.safe_load(text)
    path = folder / "block.yaml"
    if isinstance(values, list):
        Synonyms(values, str(path))
        return "synonyms"
    of_manifest = any(isinstance(task, dict) and "type" in task for task in (values.get("tasks") or {}).values())
    if set(values) <= keys(Manifest) and (of_manifest or not set(values) <= keys(Config)):
        path.write_text(yaml.safe_dump({**LEAST_MANIFEST, **values}), encoding="utf-8")
        load_manifest(path, str(folder))
        return "manifest"
    read, schema = (
        (config_from_dict, Config) if set(values) <= keys(Config) else (load_benchmark_config, BenchmarkConfig)
    )
    read({**LEAST_CONFIG, **values})
    return schema.__name__


def test_each_block_is_legal(tmp_path):
    wrong, kinds = [], set()
    for block in blocks("yaml"):
        try:
            kinds.add(check(block.text, tmp_path))
        except (MmfuseError, yaml.YAMLError, AttributeError) as error:
            wrong.append(f"{block}: {error}")
    assert not wrong, "\n".join(wrong)
    assert {"manifest", "Config"} <= kinds


def test_keys_that_sentences_name_exist():
    """Such as `training.epochs`, or with a value behind `=`."""
    wrong, seen = [], 0
    for where, span in spans():
        path = re.fullmatch(r"((?:training|data|text_encoder|image_encoder|cache|evaluation)(?:\.\w+)+)(?:=.*)?", span)
        if not path or path[1].endswith((".csv", ".jsonl", ".yaml", ".py")):
            continue
        seen += 1
        if not is_key(path[1].split(".")):
            wrong.append(f"{where}: {span}")
    assert not wrong, "\n".join(wrong)
    assert seen > 30


def is_key(names, schema=Config):
    hint = get_type_hints(schema).get(names[0])
    nested, _ = nested_in(hint)
    return hint is not None and (len(names) == 1 or nested is None or is_key(names[1:], nested))


def test_names_of_the_hf_trainer_are_transformers_own():
    """In the table of docs/coming_from.md."""
    (page,) = [page for page in PAGES if page.name == "coming_from.md"]
    table = page.read_text(encoding="utf-8").partition("| `TrainingArguments`")[2].partition("\n\n")[0]
    names = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert len(names) > 15
    assert set(names) <= {item.name for item in dataclasses.fields(TrainingArguments)}


@pytest.mark.parametrize(
    "text",
    [
        "name: x\nrows: x.csv\nid: id\ntext: {colums: [text]}",
        "rows: x.csv\nimage: {}",
        "tasks: {finding: {type: multilabels, column: finding}}",
        "tasks: {finding: {type: multilabel, column: text}}",
        "training: {epoch: 3}",
        "name: x\ndata: {manifest: x.yaml}\ntraining: {batch_size: 0}",
        "strategies: {}\nseed: 3",
        "nothing: 1",
    ],
)
def test_a_wrong_one_is_found(text, tmp_path):
    with pytest.raises(MmfuseError):
        check(text, tmp_path)
