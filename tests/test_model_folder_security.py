"""A model folder is somebody else's: nothing in it runs, reaches out, or is read from outside it."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager, suppress
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers
from transformers import AutoConfig

from mmfuse.config import DecoderConfig, ImageEncoderConfig, TextEncoderConfig
from mmfuse.encoders.image import build_image_encoder
from mmfuse.encoders.text import build_text_encoder
from mmfuse.encoders.timm_options import is_loading
from mmfuse.encoders.vocabularies import train_vocabulary
from mmfuse.heads.decoder import build_decoder
from mmfuse.model import FusionModel
from mmfuse.types import MmfuseError
from mmfuse.untrusted import load_tokenizer

TEXTS = ["heart size is normal", "small right pleural effusion", "no effusion"] * 3
VIT = {"depth": 1, "embed_dim": 16, "num_heads": 2}
BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}

# What Python tells of itself while a folder is loaded. An audit hook cannot be taken away, so it is switched.

WATCHED: list[tuple[str, str]] = []
ON = False
REQUESTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pickle.find_class")
FILES = ("open", "os.listdir", "os.scandir")
LIBRARIES = tuple(
    os.path.realpath(path)
    for path in (*sysconfig.get_paths().values(), sys.base_prefix, Path(__file__).parents[1] / "mmfuse")
)
SYSTEM = ("/proc/", "/sys/", "/dev/", "/usr/lib/locale", "/usr/share/locale")


def _watch(event, args):
    if ON and event in (*REQUESTS, *PROCESSES, *FILES):
        WATCHED.append((event, os.fsdecode(args[0]) if isinstance(args[0], (str, bytes)) else ""))
    elif ON and event == "exec":
        WATCHED.append((event, args[0].co_filename))


sys.addaudithook(_watch)


@contextmanager
def watched(folder):
    """Nothing is asked, or run, or read but in the folder."""
    global ON
    WATCHED.clear()
    ON = True
    try:
        yield
    finally:
        ON = False
    assert not [(event, path) for event, path in WATCHED if is_wrong(event, path, folder)]


def is_wrong(event, path, folder):
    if event in FILES:  # an editable install has an entry in sys.path that is no path; who looks for packages lists it
        return is_outside(path, folder) and not (path.endswith(".finder.__path_hook__") and path in sys.path)
    return event != "exec" or not (path.startswith("<") or os.path.realpath(path).startswith(LIBRARIES))


def is_outside(path, folder):
    found = os.path.realpath(path)
    return bool(path) and not found.startswith((os.path.realpath(folder), *LIBRARIES, *SYSTEM))


def build():
    torch.manual_seed(0)
    text = build_text_encoder(
        TextEncoderConfig(name="bert", pretrained=False, options=BERT, vocab_size=200, max_length=12), TEXTS
    )
    image = build_image_encoder(
        ImageEncoderConfig(name="vit_tiny_patch16_224", pretrained=False, size=[32, 32], options=VIT)
    )
    decoder = build_decoder(
        DecoderConfig(hidden_dim=16, num_layers=1, num_heads=2, vocab_size=200, max_length=12),
        lambda: train_vocabulary("byte_bpe", TEXTS, 300, 12),
        None,
        "decoder",
    )
    tasks = {
        "y": {"type": "classification", "labels": ["u", "v"]},
        "report": {"type": "captioning", "labels": [], "decoder": decoder},
    }
    return FusionModel(text, image, {"name": "concat", "out_dim": 16}, tasks).eval()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A whole one, loaded once, so that all that loading imports is imported."""
    folder = tmp_path_factory.mktemp("security") / "model"
    build().save_pretrained(folder)
    FusionModel.from_pretrained(folder)
    return folder


@pytest.fixture
def case(model_folder, tmp_path, monkeypatch):
    """A copy of it that may be spoilt, beside things that must stay untouched; the network is not switched off."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    outside = tmp_path / "outside"
    shutil.copytree(model_folder, outside / "model")
    (outside / "evil.pt").write_bytes(pickle.dumps(Evil(str(outside / "ran"))))
    (outside / "words.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nsecret\n")
    (outside / "evil.py").write_text(f"import os\nos.mkdir({str(outside / 'ran')!r})\n")
    return shutil.copytree(model_folder, tmp_path / "model"), outside


class Evil:
    """A pickle that makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def rewrite(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def of_config(*keys, **values):
    """Set keys in a mapping of config.json; OUT stands for the folder outside."""

    def change(folder, outside):
        def edit(config):
            for key in keys:
                config = config[key]
            config.update(json.loads(json.dumps(values).replace("OUT", str(outside))))

        rewrite(folder / "config.json", edit)

    return change


def options(**values):
    return of_config("image_encoder", "architecture", "options", **values)


def bert(**values):
    return of_config("text_encoder", "architecture", **values)


def gpt2(**values):
    return of_config("tasks", "report", "decoder", "architecture", **values)


def of_tokenizer(file="tokenizer_config.json", folder_name="tokenizer", drop=(), **values):
    def change(folder, outside):
        path = folder / folder_name / file
        before = json.loads(path.read_text()) if path.exists() else {}
        found = {key: value for key, value in before.items() if key not in drop}
        shutil.copy(outside / "evil.py", folder / folder_name / "evil.py")
        path.write_text(json.dumps(found | json.loads(json.dumps(values).replace("OUT", str(outside)))))

    return change


def link(name, target):
    def change(folder, outside):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target.replace("OUT", str(outside)))

    return change


def words(**values):
    """Set keys in the text encoder's tokenizer.json."""
    return lambda folder, outside: rewrite(folder / "tokenizer/tokenizer.json", lambda found: found.update(values))


def task_called(name):
    def change(folder, outside):
        def edit(config):
            config["tasks"][name] = config["tasks"].pop("y")
            config["decisions"][name] = config["decisions"].pop("y")

        rewrite(folder / "config.json", edit)

    return change


def task_named(name):
    def change(folder, outside):
        (folder / "tokenizer_..").mkdir()
        shutil.copytree(outside / "model" / "tokenizer_report", folder.parent / "stolen")

        def edit(config):
            config["tasks"][name] = config["tasks"].pop("report")
            config["decisions"][name] = config["decisions"].pop("report")

        rewrite(folder / "config.json", edit)

    return change


REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
SWIN = {"img_size": [340, 340], "patch_size": 2, "window_size": 170, "embed_dim": 8, "depths": [1], "num_heads": [1]}
LARGER = "config.json describes a larger model than model.safetensors holds"
NO_OPTION = "options.{}: no option of vit_tiny_patch16_224"
PLAIN = "plain words are expected"
NO_CODE = "its own code, which mmfuse never runs"
SETTING = "tokenizer_config.json: '{}' names files or code"
HARMLESS = None
CASES = {
    # What reaches timm
    "a checkpoint": (options(checkpoint_path="OUT/evil.pt"), NO_OPTION.format("checkpoint_path")),
    "pretrained": (options(pretrained=True), NO_OPTION.format("pretrained")),
    "pretrained_cfg": (options(pretrained_cfg={"file": "OUT/evil.pt"}), NO_OPTION.format("pretrained_cfg")),
    "an overlay": (
        options(pretrained_cfg_overlay={"hf_hub_id": "a/b"}),
        NO_OPTION.format("pretrained_cfg_overlay"),
    ),
    "pretrained_strict": (options(pretrained_strict=False), NO_OPTION.format("pretrained_strict")),
    "a cache": (options(cache_dir="OUT/cache"), NO_OPTION.format("cache_dir")),
    "features only": (options(features_only=True), NO_OPTION.format("features_only")),
    "scriptable": (options(scriptable=True), NO_OPTION.format("scriptable")),
    "classes": (options(num_classes=10**9), NO_OPTION.format("num_classes")),
    "an unknown option": (options(what=1), NO_OPTION.format("what")),
    "a path for a layer": (options(norm_layer="OUT/evil.py"), PLAIN),
    "a module for a layer": (options(act_layer="os:system"), PLAIN),
    "a huge size": (options(img_size=[10**6, 10**6]), PLAIN),
    "a large size": (options(img_size=[5000, 5000]), "at most 4096 is expected"),
    "a huge depth": (options(depth=10**12), PLAIN),
    "no number": (options(drop_rate=float("nan")), PLAIN),
    "a nested path": (options(qkv_bias={"a": ["/etc/passwd"]}), PLAIN),
    "a Hub name": (of_config("image_encoder", "architecture", name="hf-hub:a/b"), "timm has no such architecture"),
    "a folder": (of_config("image_encoder", "architecture", name="local-dir:OUT"), "timm has no such architecture"),
    "a path": (of_config("image_encoder", "architecture", name="OUT/evil"), "timm has no such architecture"),
    "no name": (of_config("image_encoder", "architecture", name=["vit"]), "timm has no such architecture"),
    "an unknown name": (of_config("image_encoder", "architecture", name="vit_of_mine"), "no such architecture"),
    "options that are none": (of_config("image_encoder", "architecture", options=["a"]), "a mapping is expected"),
    "pretrained beside the options": (of_config("image_encoder", "architecture", pretrained=True), HARMLESS),
    "preprocessing by code": (of_config("image_encoder", "preprocessing", resize="os.system"), "resize 'os.system'"),
    "more preprocessing": (of_config("image_encoder", "preprocessing", file="OUT/evil.pt"), "unexpected keyword"),
    # What reaches transformers
    "code for the text": (bert(auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}), HARMLESS),
    "another repository": (bert(auto_map={"AutoModel": "a/b--evil.Model"}), HARMLESS),
    "a kernel of the Hub": (bert(attn_implementation="kernels-community/flash-attn"), HARMLESS),
    "a kernel by its inner name": (bert(_attn_implementation_internal="a/b:kernel"), HARMLESS),
    "a kernel that is fetched": (bert(_attn_implementation="flash_attention_2"), HARMLESS),
    "flash attention": (bert(attn_implementation="flash_attention_2"), HARMLESS),
    "experts": (bert(experts_implementation="a/b"), HARMLESS),
    "a name": (bert(_name_or_path="OUT/model", name_or_path="OUT/model"), HARMLESS),
    "quantization": (bert(quantization_config={"quant_method": "gptq", "tokenizer": "OUT"}), HARMLESS),
    "trust": (bert(trust_remote_code=True), HARMLESS),
    "a type of torch": (bert(dtype="load", torch_dtype="load"), HARMLESS),
    "methods": (bert(to_dict=1, num_labels=10**12, attribute_map={"a": "_attn_implementation"}), HARMLESS),
    "an activation by path": (bert(hidden_act="OUT/evil.py"), PLAIN),
    "a bomb of a number": (bert(vocab_size=10**15), PLAIN),
    "a tower with a backbone": (bert(model_type="grounding-dino", backbone="OUT/evil.pt"), "other models as its parts"),
    "a tower of towers": (bert(model_type="clip"), "other models as its parts"),
    "timm in disguise": (
        bert(model_type="timm_wrapper", architecture="resnet18", model_args={"checkpoint_path": "OUT/evil.pt"}),
        "(no text encoder|plain words)",
    ),
    "code for a kernel": (bert(model_type="rwkv"), "fetches or compiles code while it is built"),
    "compiled code": (bert(model_type="mra"), "fetches or compiles code while it is built"),
    "a type by path": (bert(model_type="OUT/model"), "transformers has no such architecture"),
    "a type that is none": (bert(model_type={"a": 1}), "transformers has no such architecture"),
    "a truncation by code": (of_config("text_encoder", truncation="__init__"), "text truncation '__init__'"),
    "texts without end": (of_config("text_encoder", max_length=10**9), "max_length 1000000000: a number from 1 to 512"),
    "code for the decoder": (gpt2(auto_map={"AutoModelForCausalLM": "evil.Model"}, _name_or_path="OUT"), HARMLESS),
    "a kernel for the decoder": (gpt2(attn_implementation="a/b"), HARMLESS),
    "a decoder of towers": (gpt2(model_type="gemma3"), "other models as its parts"),
    "an unknown mode": (of_config("tasks", "report", "decoder", mode="os"), "decoder mode 'os'"),
    "captions without end": (of_config("tasks", "report", "decoder", max_length=10**9), "decoder max_length"),
    "generation by code": (of_config("tasks", "report", "generation", num_beams="OUT"), "num_beams"),
    "an option of generation": (of_config("tasks", "report", "generation", assistant_model="OUT"), "assistant_model"),
    # What reaches tokenizers
    "code for the tokenizer": (of_tokenizer(auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}), NO_CODE),
    "code of another": (of_tokenizer(auto_map=["a/b--evil.Tokenizer", None], drop=["tokenizer_class"]), NO_CODE),
    "code for captions": (of_tokenizer(folder_name="tokenizer_report", auto_map={"AutoTokenizer": ["e.T"]}), NO_CODE),
    "a class by path": (of_tokenizer(tokenizer_class="OUT.evil.Tokenizer"), SETTING.format("tokenizer_class")),
    "another vocabulary": (
        of_tokenizer(tokenizer_class="BertTokenizer", vocab_file="OUT/words.txt"),
        SETTING.format("vocab_file"),
    ),
    "another tokenizer": (
        of_tokenizer(tokenizer_file="OUT/model/tokenizer/tokenizer.json"),
        SETTING.format("tokenizer_file"),
    ),
    "a vocabulary by path": (
        of_tokenizer(tokenizer_class="BertTokenizer", vocab="OUT/words.txt"),
        SETTING.format("vocab"),
    ),
    "a vocabulary beside us": (of_tokenizer(tokenizer_class="BertTokenizer", vocab="words"), SETTING.format("vocab")),
    "positional arguments": (of_tokenizer(init_inputs=["OUT/words.txt"]), SETTING.format("init_inputs")),
    "an open file by a switch": (of_tokenizer(vocab_file=True), SETTING.format("vocab_file")),
    "an open file": (of_tokenizer(vocab_file=0), SETTING.format("vocab_file")),
    "a model of weights": (of_tokenizer(gguf_file="OUT/evil.pt"), SETTING.format("gguf_file")),
    "sentencepiece": (
        of_tokenizer(tokenizer_class="T5Tokenizer", sp_model_kwargs={"model_file": "OUT/words.txt"}),
        SETTING.format("sp_model_kwargs"),
    ),
    "a dictionary": (
        of_tokenizer(tokenizer_class="BertJapaneseTokenizer", mecab_kwargs={"mecab_option": "-r OUT"}),
        SETTING.format("mecab_kwargs"),
    ),
    "a file beside us": (
        of_tokenizer(tokenizer_class="MarianTokenizer", source_spm="words"),
        SETTING.format("source_spm"),
    ),
    "a path of another name": (of_tokenizer(dictionary="OUT/words.txt"), SETTING.format("dictionary")),
    "tokens that are none": (of_tokenizer(extra_special_tokens={"a": {"b": {"c": 1}}}), "extra_special_tokens"),
    "files by the map of tokens": (
        of_tokenizer("special_tokens_map.json", vocab_file="OUT/words.txt"),
        "special_tokens_map.json: 'vocab_file'",
    ),
    "a config of the tokenizer": (
        of_tokenizer("config.json", auto_map={"AutoConfig": "evil.Config"}, model_type="evil"),
        "tokenizer/config.json: a tokenizer has none",
    ),
    # What takes all memory, or the process with it
    "a word that becomes gigabytes": (
        words(normalizer={"type": "Sequence", "normalizers": [REPLACE] * 9}),
        "tokenizer.json: makes more than 100,000 characters of one",
    ),
    "bytes of bytes": (
        words(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 30}),
        "tokenizer.json: makes more than 100,000 characters of one",
    ),
    "a normalizer that is none": (words(normalizer=[1]), "tokenizer: damaged: tokenizer.json"),
    "a table of positions": (bert(model_type="gptj", max_position_embeddings=200_000_000), LARGER),
    "positions without weights": (bert(model_type="camembert", max_position_embeddings=200_000_000), LARGER),
    "positions of the decoder": (gpt2(model_type="codegen", n_positions=200_000_000), LARGER),
    "pairs of a window": (
        of_config("image_encoder", architecture={"name": "swin_s3_tiny_224", "options": SWIN}),
        LARGER,
    ),
    "a width without weights": (of_config("fusion", out_dim=10**6), LARGER),
    "a recipe of megabytes": (
        of_config(inputs={"id": "id", "text": {"columns": ["a"] * 50_000}, "image": {"column": "b"}}),
        "inputs: at most 200,000 characters",
    ),
    # Links
    "config elsewhere": (link("config.json", "OUT/model/config.json"), "a link out of the model folder"),
    "weights elsewhere": (link("model.safetensors", "OUT/model/model.safetensors"), "a link out of the model folder"),
    "weights above": (link("model.safetensors", "../outside/model/model.safetensors"), "a link out of the model"),
    "a tokenizer elsewhere": (link("tokenizer", "OUT/model/tokenizer"), "tokenizer: a link out of the model folder"),
    "words elsewhere": (link("tokenizer/tokenizer.json", "OUT/model/tokenizer/tokenizer.json"), "a link out of"),
    "a chat elsewhere": (link("tokenizer/chat_template.jinja", "/etc/hostname"), "a link out of the model folder"),
    "a card elsewhere": (link("README.md", "/etc/hostname"), "a link out of the model folder"),
    "a link to a link": (link("tokenizer", "tokenizer_report"), "a link out of the model folder"),
    "a link in a circle": (link("config.json", "config.json"), "config.json"),
    # The rest
    "a task above": (task_named("../../stolen"), "tasks: '../../stolen'"),
    "a task that a terminal obeys": (task_called("\x1b[2J"), r"tasks: '\\x1b\[2J' cannot be a task's name"),
    "half a letter": (of_config("tasks", "y", labels=["\ud800", "v"]), "tasks.y.labels: "),
    "labels that are none": (of_config("tasks", "y", labels="uv"), "tasks.y.labels: 'uv'"),
    "a version that a terminal obeys": (
        of_config(format_version=2, mmfuse_version="\x1b[2J" * 99),
        "by mmfuse .{,60} in",
    ),
    "a plug-in": (of_config(plugins={"fusion evil": "OUT/evil.py"}), "load it with --plugin"),
    "a fusion by path": (of_config("fusion", name="OUT/evil.py"), "unknown fusion"),
    "an option of the fusion": (of_config("fusion", hook="os.system"), "fusion.hook is not an option"),
    "a head by path": (of_config("tasks", "y", type="OUT/evil.py"), "unknown head"),
    "an option of a head": (of_config("tasks", "y", callback="os.system"), "head.callback is not an option"),
}


@pytest.mark.parametrize(("change", "message"), CASES.values(), ids=CASES)
def test_nothing_in_a_model_folder_runs_or_reaches_out(case, monkeypatch, change, message):
    folder, outside = case
    monkeypatch.chdir(outside)
    change(folder, outside)
    before = sorted(outside.rglob("*"))
    with watched(folder):
        if message is HARMLESS:
            loaded = FusionModel.from_pretrained(folder)
        else:
            with pytest.raises(MmfuseError, match=message) as error:
                FusionModel.from_pretrained(folder)
            assert str(error.value).isprintable()
            assert str(folder) in str(error.value)
            assert len(str(error.value)) < 1500
    assert sorted(outside.rglob("*")) == before  # nothing ran
    if message is HARMLESS:
        assert json.loads(json.dumps(loaded.config())) == json.loads((outside / "model/config.json").read_text())
        assert loaded.text_encoder.model.config._attn_implementation in ("sdpa", "eager")


def test_there_are_enough_hostile_configs():
    assert len(CASES) > 80


def test_the_watch_sees_what_it_should(case):
    folder, outside = case
    for act in (
        lambda: (outside / "words.txt").read_text(),
        lambda: exec(compile("1", str(folder / "evil.py"), "exec")),
        lambda: os.listdir(outside),
        lambda: pickle.loads((folder / "evil").read_bytes()),
        lambda: __import__("socket").getaddrinfo("localhost", 1),
    ):
        (folder / "evil").write_bytes(pickle.dumps(Evil(str(outside / "ran"))))
        with pytest.raises(AssertionError), watched(folder):
            act()


def test_a_whole_folder_loads_and_only_its_own_files_are_opened(model_folder):
    with watched(model_folder):
        FusionModel.from_pretrained(model_folder)
    opened = {Path(path).name for event, path in WATCHED if event == "open" and str(model_folder) in path}
    assert opened >= {"config.json", "tokenizer_config.json", "tokenizer.json"}


@pytest.mark.parametrize("tower", ["text_encoder", "image_encoder"])
@pytest.mark.parametrize(
    "name",
    [
        *("code for the tokenizer", "a checkpoint", "weights elsewhere", "a tokenizer elsewhere"),
        *("a table of positions", "pairs of a window"),
    ],
)
def test_towers_of_a_model_folder_are_as_safe(case, tower, name):
    folder, outside = case
    CASES[name][0](folder, outside)
    make = {
        "text_encoder": lambda: build_text_encoder(TextEncoderConfig(name=f"mmfuse-model:{folder}"), []),
        "image_encoder": lambda: build_image_encoder(ImageEncoderConfig(name=f"mmfuse-model:{folder}")),
    }[tower]
    of_image = name in ("a checkpoint", "pairs of a window")
    harmless = "elsewhere" not in name and of_image != (tower == "image_encoder")
    with watched(folder):
        if harmless:
            make()
        else:
            with pytest.raises(MmfuseError, match=f"^{tower}.name: "):
                make()
    assert not (outside / "ran").exists()


def test_a_snapshot_of_the_hub_links_to_its_own_blobs_only(model_folder, tmp_path):
    """As `snapshot_download` lays it out: each file a link to `../../blobs/HASH`."""
    repository = tmp_path / "models--a--b"
    snapshot = repository / "snapshots" / "0123"
    (repository / "blobs").mkdir(parents=True)
    for i, path in enumerate(sorted(p for p in model_folder.rglob("*") if p.is_file())):
        place = snapshot / path.relative_to(model_folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, repository / "blobs" / str(i))
        place.symlink_to(os.path.relpath(repository / "blobs" / str(i), place.parent))
    with watched(repository):
        FusionModel.from_pretrained(snapshot)
    blob = (snapshot / "config.json").resolve()
    blob.rename(tmp_path / "config.json")
    blob.symlink_to(tmp_path / "config.json")
    with pytest.raises(MmfuseError, match="a link out of the model folder"):
        FusionModel.from_pretrained(snapshot)


WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>"),
    *("heart", "size", "is", "normal", "h", "e", "a", "r", "t", "he", "Ġ", "Ġhe"),
]
TOKENIZERS = [
    *("Bert", "DistilBert", "Roberta", "GPT2", "DebertaV2", "MPNet", "Albert", "XLMRoberta"),
    *("Funnel", "Luke", "Esm", "Llama", "T5"),
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_are_read_again_and_again(tmp_path, name):
    """What transformers saves of a tokenizer that it has read is more than it saves of a new one."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "own/vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    (tmp_path / "own/merges.txt").write_text("#version: 0.2\nh e\nĠ he\n")
    tokenizer = getattr(transformers, f"{name}Tokenizer").from_pretrained(str(tmp_path / "own"))
    for i in range(3):
        tokenizer.save_pretrained(tmp_path / f"tokenizer{i}")
        with watched(tmp_path / f"tokenizer{i}"):
            again = load_tokenizer(tmp_path / f"tokenizer{i}")
        assert again("heart size")["input_ids"] == tokenizer("heart size")["input_ids"]
        tokenizer = again


# What the user names himself: his own, but its code is not run either


def as_pretrained(folder, model_folder, **config):
    """A folder as transformers' `save_pretrained` leaves it, with code beside it."""
    shutil.copytree(model_folder / "tokenizer", folder)
    AutoConfig.for_model("bert", **BERT, vocab_size=80).save_pretrained(folder)
    rewrite(folder / "config.json", lambda values: values.update(config))
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(folder / 'ran')!r})\n")
    return folder


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("where", ["tokenizer_config.json", "config.json"])
def test_nobody_is_asked_to_run_a_repositorys_code(model_folder, tmp_path, monkeypatch, where, pretrained):
    folder = as_pretrained(tmp_path / "bert", model_folder)
    change = {"auto_map": {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
    change |= {"model_type": "evil"} if where == "config.json" else {"tokenizer_class": "Evil"}
    rewrite(folder / where, lambda values: values.update(change))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    makers = [
        lambda: build_text_encoder(TextEncoderConfig(name=str(folder), pretrained=pretrained, max_length=12), []),
        lambda: build_decoder(DecoderConfig(name=str(folder), pretrained=True), lambda: None, None, "decoder"),
    ]
    for make in makers:
        if where == "config.json":
            with pytest.raises(MmfuseError, match=NO_CODE) as error:
                make()
            assert "\n" not in str(error.value)
        else:  # transformers has a tokenizer of its own for bert, but no weights are here
            with suppress(MmfuseError):
                make()
    assert not (folder / "ran").exists()


def test_what_the_user_begins_with_is_not_kept_and_what_could_not_be_loaded_is_refused():
    with pytest.raises(MmfuseError, match="'resnet10t' cannot be built"):
        build_image_encoder(
            ImageEncoderConfig(name="resnet10t", pretrained=False, options={"checkpoint_path": "/nowhere.pt"})
        )
    made = build_image_encoder(
        ImageEncoderConfig(name="resnet10t", pretrained=False, size=[32, 32], options={"pretrained_strict": False})
    )
    assert made.spec()["architecture"] == {"name": "resnet10t", "options": {}}
    assert not is_loading("pretrained_window_sizes")  # of Swin v2: part of the architecture


# Files that may not be read, and who may read what is written


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer/tokenizer_config.json", "tokenizer_report/tokenizer.json"]
)
def test_a_file_that_may_not_be_read_is_called_that(case, monkeypatch, name):
    folder, _ = case
    real = Path.open

    def refuse(path, *args, **kwargs):  # root, as tests may run, could read all
        if path == folder / name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(MmfuseError, match=f"{name}: cannot be read"):
        FusionModel.from_pretrained(folder)
    if name == "model.safetensors":
        with pytest.raises(MmfuseError, match=f"{name}: cannot be read"):
            build_image_encoder(ImageEncoderConfig(name=f"mmfuse-model:{folder}"))


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_what_is_written_follows_the_umask(tmp_path, mask):
    model = FusionModel(
        None,
        build_image_encoder(ImageEncoderConfig(name="resnet10t", pretrained=False, size=[32, 32])),
        {"name": "image_only", "out_dim": 8},
        {"y": {"type": "classification", "labels": ["u", "v"]}},
    )
    before = os.umask(mask)
    try:
        model.save_pretrained(tmp_path / "model")
        model.save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert set(modes.values()) == {0o666 & ~mask}, modes
    assert "model.safetensors" in modes
    assert len(modes) == 3


# The same, asked of the kernel

TRACED = """
import os, sys
from mmfuse.model import FusionModel
FusionModel.from_pretrained(sys.argv[1])
try: open("/BEGIN")
except OSError: pass
FusionModel.from_pretrained(sys.argv[1])
try: open("/END")
except OSError: pass
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_the_kernel_sees_no_request_and_no_file_outside(model_folder, tmp_path):
    trace = tmp_path / "trace"
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = ["strace", "-f", "--seccomp-bpf", "-e", "trace=openat,open,connect,execve", "-o", str(trace)]
    subprocess.run([*command, sys.executable, "-c", TRACED, str(model_folder)], env=environment, check=True)
    lines = trace.read_text().split('"/BEGIN"')[1].split('"/END"')[0].splitlines()[1:-1]
    assert not [line for line in lines if "connect(" in line or "execve(" in line]
    opened = [line.split('"')[1] for line in lines if '"' in line and "ENOENT" not in line]
    assert not [path for path in opened if is_outside(path, model_folder)]
    assert any(path.endswith("model.safetensors") for path in opened)  # which Python's own watch does not see


def test_what_an_export_takes_away_meanwhile_is_no_error(model_folder, tmp_path, monkeypatch):
    """Its scratch folder was listed, and has got its name before it is looked into."""
    shutil.copytree(model_folder, tmp_path / "model")
    scratch = tmp_path / "model" / "exported" / "openvino-fp32.building-1"
    scratch.mkdir(parents=True)
    scandir = os.scandir

    def renamed(folder):
        if Path(folder) == scratch:
            scratch.rename(scratch.with_name("openvino-fp32"))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", renamed)
    FusionModel.from_pretrained(tmp_path / "model")
    assert not scratch.exists()
