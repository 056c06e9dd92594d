"""What docs/compare.md tells one to run, run."""

import re
import shlex
import shutil
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page(pair, mmfuse, tmp_path, monkeypatch, capsys):
    shutil.copytree(pair.manifest.parent, tmp_path / "data")
    manifest = yaml.safe_load((tmp_path / "data" / "manifest.yaml").read_text())
    del manifest["subgroups"]  # evaluate takes long to permute them
    (tmp_path / "data" / "studies.yaml").write_text(yaml.safe_dump(manifest))
    monkeypatch.chdir(tmp_path / "data")
    for name, model in (("old", pair.a), ("new", pair.b)):
        shutil.copytree(model, Path("runs", name, "model"))
    printed = []
    for line in (line for block in blocks("sh") for line in block.splitlines()):
        program, *words = shlex.split(line, comments=True)
        assert program == "mmfuse"
        code, said, complained = mmfuse(*words)
        assert code == 0, (line, said, complained)
        printed.append(said)
    assert "Decisions that flip from a to b" in printed[0]
    assert "b at a margin of 0.02" in printed[1]
    assert "passed: findings/brier <= 0.9: " in printed[-2]
    assert "passed: findings/accuracy >= -0.9: " in printed[-1]
    assert Path("comparison", "flips.jsonl").is_file()
    (python,) = blocks("python")
    exec(compile(python, "compare.md", "exec"), {})
    assert "findings accuracy" in capsys.readouterr().out


def test_the_codes_are_those_of_the_command_line():
    from mmfuse.cli.faults import BUG, USERS
    from mmfuse.cli.shared import DATA_FAILS, INTERRUPTED, NOT_REACHED, NOTHING_READ, TERMINATED

    codes = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE)
    assert codes == ["0", str(NOT_REACHED), str(USERS), str(BUG), f"{INTERRUPTED}, {TERMINATED}"]
    assert f"with {NOTHING_READ} where" in PAGE
    assert f"with {DATA_FAILS} where" in PAGE
