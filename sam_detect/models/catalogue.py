"""Which models there are, under all their names. No torch here: open_clip's table is asked only
for a CLIP model that is not listed below."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError

DEFAULT = "base"
"""Both the SAM 2.1 and the CLIP model that are meant where none is named."""
SAFE_FILE = "open_clip_model.safetensors"
HUB_FILES = (SAFE_FILE, "open_clip_pytorch_model.bin")
"""What open_clip's repositories on the hub call their weights, the safe format first."""


@dataclass(frozen=True)
class Model:
    """Weights that the Hugging Face hub has.

    Attributes:
        name: the full name.
        hub: the repository.
        filenames: names that the weights may have there, the preferred one first.
        size_bytes: for people only; None where it is not known.
        aliases: other names, the shortest first.
        licence: None where each repository has its own.
    """

    name: str
    hub: str
    filenames: tuple[str, ...]
    size_bytes: int | None = None
    aliases: tuple[str, ...] = ()
    licence: str | None = None

    @property
    def shortest(self) -> str:
        """What to type for it."""
        return self.aliases[0] if self.aliases else self.name

    @property
    def source(self) -> str:
        """The address of the preferred file."""
        return f"https://huggingface.co/{self.hub}/resolve/main/{self.filenames[0]}"


@dataclass(frozen=True)
class SAM2Model(Model):
    """One of Meta's checkpoints; ``config`` as the ``sam2`` package names it."""

    config: str = ""
    kind: ClassVar[str] = "sam2"

    @property
    def option(self) -> str:
        """What ``download-models`` is given for it."""
        return f"--sam-model {self.shortest}"

    @property
    def folder(self) -> str:
        """Where a file that the user puts here belongs, below the folder of models."""
        return "sam2"


@dataclass(frozen=True)
class CLIPModel(Model):
    """One set of weights for one of open_clip's architectures."""

    kind: ClassVar[str] = "clip"

    @property
    def model(self) -> str:
        """The architecture, as open_clip names it."""
        return self.name.partition("/")[0]

    @property
    def pretrained(self) -> str:
        """open_clip's tag of the weights."""
        return self.name.partition("/")[2]

    @property
    def option(self) -> str:
        """What ``download-models`` is given for it."""
        return f"--clip-model {self.shortest}"

    @property
    def folder(self) -> str:
        """Where a file that the user puts here belongs, below the folder of models."""
        return f"clip/{self.name}"


@dataclass(frozen=True)
class SAM2Weights:
    """A SAM 2 checkpoint on this machine.

    Attributes:
        name: Meta's name, or the stem of the user's own file.
        config: the configuration's name in the ``sam2`` package, or the path of a YAML file.
        path: the checkpoint.
    """

    name: str
    config: str
    path: Path


@dataclass(frozen=True)
class CLIPWeights:
    """CLIP weights on this machine.

    Attributes:
        model: open_clip's name of the architecture, such as ``ViT-B-32``.
        pretrained: open_clip's tag of the weights, such as ``openai``; the tag also says how
            pictures are prepared and which activation the model has.
        path: the file.
    """

    model: str
    pretrained: str
    path: Path


def _sam2(name: str, letter: str, size_bytes: int, *aliases: str) -> SAM2Model:
    release = name.partition("_")[0]
    return SAM2Model(
        name, f"facebook/{name.replace('_', '-')}", (f"{name}.pt",), size_bytes, aliases,
        "Apache-2.0", config=f"configs/{release}/{release}_hiera_{letter}.yaml",
    )  # fmt: skip


def _openai(name: str, hub: str, size_bytes: int | None, *aliases: str) -> CLIPModel:
    # OpenAI's weights as open_clip itself downloads them. The files on OpenAI's own server are
    # TorchScript archives, which cannot be loaded without running their code.
    hub = f"timm/vit_{hub}.openai"
    return CLIPModel(f"{name}/openai", hub, HUB_FILES, size_bytes, aliases, "MIT")


SAM2_MODELS = (
    _sam2("sam2.1_hiera_tiny", "t", 156_008_466, "tiny"),
    _sam2("sam2.1_hiera_small", "s", 184_416_285, "small"),
    _sam2("sam2.1_hiera_base_plus", "b+", 323_606_802, "base", "base_plus", "base+"),
    _sam2("sam2.1_hiera_large", "l", 898_083_611, "large"),
    _sam2("sam2_hiera_tiny", "t", 155_906_050),
    _sam2("sam2_hiera_small", "s", 184_309_650),
    _sam2("sam2_hiera_base_plus", "b+", 323_493_298),
    _sam2("sam2_hiera_large", "l", 897_952_466),
)
CLIP_MODELS = (
    _openai("ViT-B-32", "base_patch32_clip_224", 605_143_284, "base", "clip-vit-b",
            "clip-vit-b-32", "openai/clip-vit-base-patch32", "ViT-B/32"),
    _openai("ViT-B-16", "base_patch16_clip_224", None, "clip-vit-b-16",
            "openai/clip-vit-base-patch16", "ViT-B/16"),
    _openai("ViT-L-14", "large_patch14_clip_224", None, "large", "clip-vit-l", "clip-vit-l-14",
            "openai/clip-vit-large-patch14", "ViT-L/14"),
    _openai("ViT-L-14-336", "large_patch14_clip_336", None, "clip-vit-l-14-336",
            "openai/clip-vit-large-patch14-336", "ViT-L/14@336px"),
)  # fmt: skip


def find_sam2(name: str) -> SAM2Model | None:
    """The checkpoint of a name: Meta's (with or without ``.pt``), a size, or its id on the hub."""
    plain = name.strip().lower().removesuffix(".pt").removeprefix("facebook/").replace("-", "_")
    for model in SAM2_MODELS:
        if plain in (model.name, PurePosixPath(model.config).stem, *model.aliases):
            return model
    return None


def sam2_model(name: str) -> SAM2Model:
    """The checkpoint of a name.

    Raises:
        UnknownNameError: nothing has this name; the message lists what has.
    """
    found = find_sam2(name)
    if found is None:
        known = [model.name for model in SAM2_MODELS]
        sizes = [model.shortest for model in SAM2_MODELS if model.aliases]
        raise _unknown("SAM 2 model", name, [*sizes, *known])
    return found


def clip_model(name: str) -> CLIPModel:
    """The CLIP weights of a name: ``base``, ``MODEL/TAG`` or ``MODEL:TAG`` of open_clip, a model
    alone where its weights are OpenAI's or the only ones, or an id on the Hugging Face hub.

    Raises:
        UnknownNameError: nothing has this name.
        ConfigError: there are several weights for this model, and none is named.
        UnavailableError: not one of those listed here, and open_clip is not installed.
    """
    plain = name.strip().removeprefix("hf-hub:").rstrip("/").lower()
    for model in CLIP_MODELS:
        names = (model.model, model.name, f"{model.model}:{model.pretrained}", model.hub)
        if plain in map(str.lower, (*names, *model.aliases)):
            return model
    return _of_open_clip(name, plain)


def _of_open_clip(name: str, plain: str) -> CLIPModel:
    table = _open_clip_table(name)
    for model in table:
        tagged = (model.name, f"{model.model}:{model.pretrained}")
        if plain.replace("-", "_") in (each.lower().replace("-", "_") for each in tagged):
            return model
    # Where a repository serves a model and its `-quickgelu` twin, the plain one comes first.
    for model in table:
        if plain == model.hub.lower():
            return model
    return _of_architecture(name, [model for model in table if model.model.lower() == plain], table)


def _of_architecture(name: str, found: list[CLIPModel], table: Iterable[CLIPModel]) -> CLIPModel:
    if not found:
        known = [alias for model in CLIP_MODELS for alias in (model.shortest, model.name)]
        close = [text for model in table for text in (model.model, model.name)]
        raise _unknown("CLIP model", name, known, also=close, more="every MODEL/TAG of open_clip")
    found = [model for model in found if model.pretrained == "openai"] or found
    if len(found) > 1:
        tags = ", ".join(model.name for model in found)
        raise ConfigError(
            f"there are several weights for the CLIP model '{name}': name one ({tags})"
        )
    return found[0]


def _open_clip_table(name: str) -> list[CLIPModel]:
    """Every model and tag that open_clip can download from the hub."""
    try:
        import open_clip
    except ImportError as error:
        raise UnavailableError(
            f"the CLIP model '{name}' is looked up in open_clip, which is not installed: "
            f"pip install 'sam-detect[models]'"
        ) from error
    table = []
    for model, tag in open_clip.list_pretrained():
        repository, filenames = _hub_place(open_clip.get_pretrained_cfg(model, tag)["hf_hub"])
        table.append(CLIPModel(f"{model}/{tag}", repository, filenames))
    return table


def _hub_place(place: str) -> tuple[str, tuple[str, ...]]:
    """Repository and file names of what open_clip writes ``owner/name/`` or ``owner/name/file``."""
    repository, _, filename = place.rpartition("/")
    if not filename:
        return repository, HUB_FILES
    safe = str(PurePosixPath(filename).with_suffix(".safetensors"))
    return repository, tuple(dict.fromkeys((safe, filename)))


def _unknown(
    what: str, name: str, known: list[str], *, also: Iterable[str] = (), more: str = ""
) -> UnknownNameError:
    close = difflib.get_close_matches(name, [*known, *also], n=1)
    guess = f"; did you mean '{close[0]}'?" if close else ""
    listed = ", ".join([*dict.fromkeys(known), *filter(None, [more])])
    return UnknownNameError(f"no {what} is named '{name}'{guess} (available: {listed})")
