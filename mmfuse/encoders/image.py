"""Image tower: any timm model, pretrained or not."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmfuse.config import LARGEST_SIZE, ImageEncoderConfig
from mmfuse.effect import SAVED_TOWER
from mmfuse.encoders.adapters import keep_to_adapter
from mmfuse.encoders.saved import damaged_tower, read_tower, stand_on
from mmfuse.encoders.timm_options import check_architecture, is_loading
from mmfuse.types import Features, MmfuseError

_LEGAL = {
    "resize": ("squash", "pad", "crop"),
    "interpolation": ("bilinear", "bicubic"),
    "background": ("white", "black"),
    "pooling": ("mean", "cls"),
    "batch_norm": ("frozen", "train", "sync"),
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes the tower's pixels.

    Attributes:
        size: (H, W).
        resize: "squash", "pad" or "crop".
        interpolation: "bilinear" or "bicubic".
        background: What transparent pixels show.
        mean: Of each channel, in [0, 1]; subtracted in the model.
        std: Of each channel, in [0, 1]; divided by in the model.
    """

    size: tuple[int, int]
    resize: str
    interpolation: str
    background: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class ImageEncoder(nn.Module):
    """A timm model, its classifier removed; it normalises its own input.

    Args:
        model: A timm model created with `num_classes=0`.
        architecture: The timm name and the options it was created with.
        preprocessing: What its pixels are.
        pooling: "mean" over patches, or "cls".
        batch_norm: While it is trained, batch statistics are "frozen", or kept up by "train" or "sync".

    Attributes:
        dim: Width of the features.
        grid: (h, w, prefix tokens) of an image's tokens.
        frozen: Whether it stays in eval mode and gets no gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        architecture: dict[str, Any],
        preprocessing: Preprocessing,
        *,
        pooling: str = "mean",
        batch_norm: str = "train",
    ):
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.pooling = pooling
        self.batch_norm = batch_norm
        self.frozen = False
        self.prefix = int(getattr(model, "num_prefix_tokens", 0))
        self.register_buffer("mean", 255 * torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1 / (255 * torch.tensor(preprocessing.std).view(1, 3, 1, 1)), persistent=False)
        with torch.no_grad():
            mode = self.model.training
            self.model.eval()
            tokens, (h, w) = self._tokens(torch.zeros(1, 3, *preprocessing.size))
            self.model.train(mode)
        self.dim: int = tokens.shape[-1]
        self.grid = (h, w, self.prefix)

    def forward(self, pixels: Tensor, shift: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            pixels: `(N, 3, H, W)` uint8.
            shift: What is added to the normalised pixels, of the shape of `zero_shift`.

        Returns:
            `tokens` are the prefix tokens, then the patches row by row `(N, P, D)`; `present` is True.
        """
        x = (pixels.to(self.mean.dtype) - self.mean) * self.scale  # type: ignore[operator]
        if shift is not None:
            x = x + shift
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens, _ = self._tokens(x)
        pooled = tokens[:, 0] if self.pooling == "cls" else tokens[:, self.prefix :].mean(1)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Features(tokens, mask, pooled, mask[:, 0])

    def zero_shift(self, pixels: Tensor) -> Tensor:
        """`(N, 3, H, W)` zeros: what may be added to these images, once they are normalised."""
        return torch.zeros(pixels.shape, device=pixels.device)

    def _tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        found: Tensor = self.model.forward_features(x)  # type: ignore[operator]
        if found.ndim == 3:
            h, w = self._patch_grid(found.shape[1] - self.prefix)
            return found, (h, w)
        if getattr(self.model, "output_fmt", "NCHW") == "NCHW":
            found = found.permute(0, 2, 3, 1)
        h, w = found.shape[1:3]
        return found.flatten(1, 2), (h, w)

    def _patch_grid(self, patches: int) -> tuple[int, int]:
        H, W = self.preprocessing.size
        h = round((patches * H / W) ** 0.5)
        return h, patches // max(h, 1)

    def freeze(self, frozen: bool) -> None:
        """Freeze or release the weights; frozen, it also stays in eval mode."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        if self.batch_norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.requires_grad_(False)
        keep_to_adapter(self)
        self.train(self.training)

    def checkpoint_gradients(self) -> None:
        """Keep only each layer's input while training, and compute its inside again in the backward pass.

        Raises:
            MmfuseError: The architecture cannot, or has batch statistics that would be counted twice.
        """
        name = self.architecture["name"]
        if self.batch_norm != "frozen" and any(isinstance(module, _BatchNorm) for module in self.modules()):
            raise MmfuseError(
                f"training.gradient_checkpointing: image_encoder: {name!r} would count its batch statistics twice; set "
                "image_encoder.batch_norm: frozen, or gradient_checkpointing to false"
            )
        try:
            self.model.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AttributeError, AssertionError) as error:  # timm asserts that nobody asks for it
            raise MmfuseError(
                f"training.gradient_checkpointing: image_encoder: {name!r} cannot; set it to false"
            ) from error

    def train(self, mode: bool = True) -> ImageEncoder:
        """Training mode, except where it is frozen, and for batch statistics that are."""
        super().train(mode and not self.frozen)
        if self.batch_norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    @torch.no_grad()
    def fold_batch_norm(self) -> int:
        """Fold each batch norm that reads a convolution's output into that convolution, for inference only.

        Where a norm sits is found by running the model once and following the tensors. The same function in eval mode
        up to rounding, with fewer passes over memory; the tower can no longer be trained, nor loaded into. A model
        that uses a convolution's output beside its norm is found by the difference, and left as it was.

        Returns:
            How many were folded.

        Raises:
            MmfuseError: Its features of noise are no finite numbers.
        """
        self.eval()
        probe = torch.randn(1, 3, *self.preprocessing.size, generator=torch.Generator().manual_seed(0))
        original = copy.deepcopy(self.model)
        made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
        pairs: list[tuple[nn.Conv2d, nn.Module]] = []

        def after_convolution(module: nn.Module, _: Any, output: Tensor) -> None:
            made[id(output)] = (module, output)  # type: ignore[assignment]

        def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if id(inputs[0]) in made:
                pairs.append((made[id(inputs[0])][0], module))

        hooks = [
            m.register_forward_hook(after_convolution) for m in self.modules() if type(m) in (nn.Conv2d, Conv2dSame)
        ]
        norms = (nn.BatchNorm2d, BatchNormAct2d)
        hooks += [m.register_forward_pre_hook(before_norm) for m in self.modules() if type(m) in norms]
        wanted, _ = self._tokens(probe)
        if not bool(wanted.isfinite().all()):
            raise MmfuseError("the image encoder's features are no finite numbers: its weights are damaged")
        for hook in hooks:
            hook.remove()
        for convolution, norm in pairs:
            fused = fuse_conv_bn_eval(convolution, norm)  # type: ignore[arg-type]
            convolution.weight, convolution.bias = fused.weight, fused.bias
            acts: Any = norm
            rest = nn.Sequential(acts.drop, acts.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
            parent, _, name = next(n for n, m in self.named_modules() if m is norm).rpartition(".")
            setattr(self.get_submodule(parent), name, rest)
        found, _ = self._tokens(probe)
        if not torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max())):
            self.model = original
            return 0
        return len(pairs)

    def spec(self) -> dict[str, Any]:
        """What `from_spec` builds the same architecture from; JSON."""
        return {
            "architecture": self.architecture,
            "preprocessing": asdict(self.preprocessing),
            "pooling": self.pooling,
            "batch_norm": self.batch_norm,
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any], weights: dict[str, Tensor] | None = None) -> ImageEncoder:
        """Rebuild from `spec`, on `weights` as they are (see `stand_on`); default: random ones.

        Raises:
            MmfuseError: A value in it is not legal, or the weights do not fit.
        """
        _check_spec(spec)
        values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in spec["preprocessing"].items()}
        preprocessing = Preprocessing(**values)
        architecture = {name: spec["architecture"][name] for name in ("name", "options")}
        model = timm.create_model(architecture["name"], pretrained=False, num_classes=0, **architecture["options"])
        if weights is not None:
            model = stand_on(model, weights)
        return cls(model, architecture, preprocessing, pooling=spec["pooling"], batch_norm=spec["batch_norm"])


def _check_spec(spec: dict[str, Any]) -> None:
    """Refuse what `spec` never writes: a damaged size alone could take all memory."""
    given = spec["preprocessing"]
    size = given["size"]
    if not (len(size) == 2 and all(type(side) is int and 1 <= side <= LARGEST_SIZE for side in size)):
        raise MmfuseError(f"image size {size!r:.60}: two numbers [H, W] from 1 to {LARGEST_SIZE} are expected")
    check_architecture(spec["architecture"]["name"], spec["architecture"]["options"], "image architecture")
    for key in ("mean", "std"):
        if len(given[key]) != 3 or not all(math.isfinite(value) for value in given[key]) or 0 in given["std"]:
            raise MmfuseError(f"image {key} {given[key]!r:.60}: three finite numbers, of std not 0, are expected")
    for key, legal in _LEGAL.items():
        value = {**given, **spec}[key]
        if value not in legal:
            raise MmfuseError(f"image {key} {value!r:.60}: one of {', '.join(legal)} is expected")


def build_image_encoder(config: ImageEncoderConfig) -> ImageEncoder:
    """The image tower a run asks for.

    Raises:
        MmfuseError: There is no such model, it does not take these options, or it has no features of one size.
    """
    if config.name.startswith(SAVED_TOWER):
        _, spec, weights = read_tower(config.name, "image_encoder")
        with damaged_tower(config.name, "image_encoder"):
            encoder = ImageEncoder.from_spec(spec, weights)
        encoder.freeze(config.frozen)
        return encoder
    name, options = config.name, dict(config.options)
    if name.startswith("local-dir:") and not (Path(name.removeprefix("local-dir:")) / "config.json").is_file():
        raise MmfuseError(f"image_encoder.name: {name}: no config.json in that folder")
    if name.startswith("timm/"):
        name = f"hf-hub:{name}"
    fixed_size = {}
    try:
        if config.size is not None and _takes_size(name):
            fixed_size = {"img_size": tuple(config.size)}
        model = timm.create_model(name, pretrained=config.pretrained, num_classes=0, **fixed_size, **options)
    except Exception as error:  # timm raises whatever the architecture's constructor or the hub does
        reason = str(error).strip().partition("\n")[0]
        raise MmfuseError(
            f"image_encoder.name: {config.name!r} cannot be built ({type(error).__name__}: {reason}); a timm name "
            "(timm.list_models()), a Hub name such as timm/resnet50.a1_in1k, or local-dir:FOLDER is expected"
        ) from error
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    size = tuple(config.size or cfg["input_size"][1:])
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if size[0] % patch[0] or size[1] % patch[1]:
        raise MmfuseError(
            f"image_encoder.size: {list(size)} is not a multiple of {config.name!r}'s {patch[0]} x {patch[1]} patches;"
            " right and bottom edges would not be read"
        )
    batch_norm = config.batch_norm
    if batch_norm == "auto":
        batch_norm = "frozen" if config.pretrained else "train"
    pooling = config.pooling
    if pooling == "auto":
        pooling = "cls" if getattr(model, "global_pool", "") == "token" else "mean"
    if pooling == "cls" and not getattr(model, "num_prefix_tokens", 0):
        raise MmfuseError(f"image_encoder.pooling: {config.name!r} has no CLS token; legal: mean, auto")
    preprocessing = Preprocessing(
        size=(size[0], size[1]),
        resize=config.resize,
        interpolation="bicubic" if cfg["interpolation"] == "bicubic" else "bilinear",
        background=config.background,
        mean=tuple(cfg["mean"]),  # type: ignore[arg-type]
        std=tuple(cfg["std"]),  # type: ignore[arg-type]
    )
    kept = {key: value for key, value in {**_model_args(name), **options}.items() if not is_loading(key)}
    architecture = {"name": cfg["architecture"], "options": kept}
    if fixed_size:
        architecture["options"]["img_size"] = list(fixed_size["img_size"])
    try:
        encoder = ImageEncoder(model, architecture, preprocessing, pooling=pooling, batch_norm=batch_norm)
    except Exception as error:  # the constructor tries it on an empty image
        reason = str(error).strip().partition("\n")[0]
        raise MmfuseError(
            f"image_encoder.size: {config.name!r} cannot read images of {size[0]} x {size[1]} pixels "
            f"({type(error).__name__}: {reason}); choose another, such as {list(cfg['input_size'][1:])}"
        ) from error
    check_architecture(architecture["name"], kept, "image_encoder")  # or nobody could load the model
    encoder.freeze(config.frozen)
    return encoder


def _takes_size(name: str) -> bool:
    """Whether the architecture must be told its input size: those with position embeddings."""
    architecture = name
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        architecture = json.loads((folder / "config.json").read_text())["architecture"]
    elif name.startswith("hf-hub:"):
        architecture = name.split("/")[-1]
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture.split(".")[0], pretrained=False)
    except RuntimeError:
        return False
    return hasattr(model, "pos_embed") or hasattr(model, "set_input_size")


def _model_args(name: str) -> dict[str, Any]:
    """The constructor arguments that a local timm folder's config.json carries."""
    if not name.startswith("local-dir:"):
        return {}
    folder = Path(name.removeprefix("local-dir:"))
    return dict(json.loads((folder / "config.json").read_text()).get("model_args") or {})
