"""Which models there are, under all their names; and what a library's recipe may say of one.

A library may come from a stranger, so its recipe never says what to load. A model of the catalogue
is found by its name; a file or folder of the user's own has to be given again, and is checked.

No torch here: open_clip's table is asked only for a CLIP model that is not listed below.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError
from sam_detect.types import Recipe

DEFAULT = "base"
"""Both the SAM 2.1 and the CLIP model that are meant where none is named."""
SAFE_FILE = "open_clip_model.safetensors"
HUB_FILES = (SAFE_FILE, "open_clip_pytorch_model.bin")
"""What open_clip's repositories on the hub call their weights, the safe format first."""

FILE = "file"
"""The parameter that is the name, without its folder, of a file or folder of the user's own."""
DIGESTS = ("digest", "config_digest")
DIGEST = re.compile(r"[0-9a-f]{16,64}")
META_CONFIGS = (
    "544b879e6a1eb7cf", "7f42aacf9d45c88d", "aab887b8a6f2a0f9", "ab30ec7eea6c2c5b",
    "915f3ece3f104bec", "546bd6185c7a87d4", "ea48c16b343cdd37", "a9e679b09c57b88c",
)  # fmt: skip
"""What older versions wrote as the ``config_digest`` of the user's own SAM 2 checkpoint that has
one of Meta's configurations, the only ones today."""
CLIP_NAME = re.compile(r"\w[\w.+-]*/\w[\w.+-]*")
LIKE_A_PLACE = re.compile(r"[/\\:~]|^\.")
"""In a text: it may be a path, an address or ``module:Class``."""
PARAMETERS: dict[str, tuple[str, ...]] = {
    "average": (),
    "appearance": (),
    "lite": ("pooling",),
    "clip": ("model_name", FILE, *DIGESTS, "dtype"),
    "sam2": ("model_size", FILE, *DIGESTS, "pooling", "occupancies", "dtype"),
}
"""Of each built-in embedder, those that a recipe may have."""
PATHS = {"clip": ("model_name", "weights"), "sam2": ("model_size", "config")}
"""Parameters that older versions wrote paths into."""
CHOICES = {"dtype": ("auto", "fp32", "bf16", "fp16"), "pooling": ("crop", "frame", "auto")}


@dataclass(frozen=True)
class Model:
    """Weights that the Hugging Face hub has.

    Attributes:
        name: the full name; of CLIP weights ``ARCHITECTURE/TAG``, as open_clip names them.
        hub: the repository.
        filenames: names that the weights may have there, the preferred one first.
        size_bytes: for people only; None where it is not known.
        aliases: other names, the shortest first.
        licence: None where each repository has its own.
        config: of a SAM 2 checkpoint, as the ``sam2`` package names it; empty for CLIP.
    """

    name: str
    hub: str
    filenames: tuple[str, ...]
    size_bytes: int | None = None
    aliases: tuple[str, ...] = ()
    licence: str | None = None
    config: str = ""

    @property
    def kind(self) -> str:
        return "sam2" if self.config else "clip"

    @property
    def model(self) -> str:
        """The architecture of CLIP weights, as open_clip names it."""
        return self.name.partition("/")[0]

    @property
    def pretrained(self) -> str:
        """open_clip's tag of CLIP weights."""
        return self.name.partition("/")[2]

    @property
    def shortest(self) -> str:
        """What to type for it."""
        return self.aliases[0] if self.aliases else self.name

    @property
    def option(self) -> str:
        """What ``download-models`` is given for it."""
        return f"--{'sam' if self.config else 'clip'}-model {self.shortest}"

    @property
    def source(self) -> str:
        """The address of the preferred file."""
        return f"https://huggingface.co/{self.hub}/resolve/main/{self.filenames[0]}"

    @property
    def folder(self) -> str:
        """Where a file that the user puts here belongs, below the folder of models."""
        return "sam2" if self.config else f"clip/{self.name}"


@dataclass(frozen=True)
class SAM2Weights:
    """A SAM 2 checkpoint on this machine.

    Attributes:
        name: Meta's name, or the stem of the user's own file.
        config: its configuration in the ``sam2`` package; None for the user's own file, whose
            weights tell it.
        path: the checkpoint.
    """

    name: str
    config: str | None
    path: Path


@dataclass(frozen=True)
class CLIPWeights:
    """CLIP weights on this machine.

    Attributes:
        model: open_clip's name of the architecture, such as ``ViT-B-32``.
        pretrained: open_clip's tag of the weights, such as ``openai``; the tag also says how
            pictures are prepared and which activation the model has. Empty for the user's own
            file.
        path: the file.
    """

    model: str
    pretrained: str
    path: Path


def _sam2(name: str, letter: str, size_bytes: int, *aliases: str) -> Model:
    release = name.partition("_")[0]
    return Model(
        name, f"facebook/{name.replace('_', '-')}", (f"{name}.pt",), size_bytes, aliases,
        "Apache-2.0", f"configs/{release}/{release}_hiera_{letter}.yaml",
    )  # fmt: skip


def _openai(name: str, hub: str, size_bytes: int | None, *aliases: str) -> Model:
    # OpenAI's weights as open_clip itself downloads them. The files on OpenAI's own server are
    # TorchScript archives, which cannot be loaded without running their code.
    hub = f"timm/vit_{hub}.openai"
    return Model(f"{name}/openai", hub, HUB_FILES, size_bytes, aliases, "MIT")


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


def find_sam2(name: str) -> Model | None:
    """The checkpoint of a name: Meta's (with or without ``.pt``), a size, or its id on the hub."""
    plain = name.strip().lower().removesuffix(".pt").removeprefix("facebook/").replace("-", "_")
    for model in SAM2_MODELS:
        if plain in (model.name, PurePosixPath(model.config).stem, *model.aliases):
            return model
    return None


def sam2_model(name: str) -> Model:
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


def clip_model(name: str) -> Model:
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


def _of_open_clip(name: str, plain: str) -> Model:
    """The weights of a name in the table of every model and tag that open_clip can download."""
    try:
        import open_clip
    except ImportError as error:
        raise UnavailableError(
            f"the CLIP model '{name}' is looked up in open_clip, which is not installed: "
            f"pip install 'sam-detect[models]'"
        ) from error
    table = [
        Model(f"{model}/{tag}", *_hub_place(open_clip.get_pretrained_cfg(model, tag)["hf_hub"]))
        for model, tag in open_clip.list_pretrained()
    ]
    for model in table:
        tagged = (model.name, f"{model.model}:{model.pretrained}")
        if plain.replace("-", "_") in (each.lower().replace("-", "_") for each in tagged):
            return model
    # Where a repository serves a model and its `-quickgelu` twin, the plain one comes first.
    found = [model for model in table if plain == model.hub.lower()][:1]
    found = found or [model for model in table if plain == model.model.lower()]
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


def checked_model(embedder: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a recipe's embedder, without any path.

    Args:
        embedder: its name. Parameters of embedders that are not built in are given back as they
            are; :func:`names_a_place` tells which of them are not to be used.

    Raises:
        ValueError: a parameter that the embedder does not have, or that has no such value.
    """
    if embedder not in PARAMETERS:
        return dict(model)
    found = _without_paths(embedder, model)
    unknown = sorted(found.keys() - set(PARAMETERS[embedder]))
    if unknown:
        raise ValueError(f"its embedder {embedder} has no parameter {unknown[0]!r:.60}")
    for name in DIGESTS:
        if name in found and not (isinstance(found[name], str) and DIGEST.fullmatch(found[name])):
            raise ValueError(f"its model's {name} should be hexadecimal, got {found[name]!r:.60}")
    if embedder == "sam2" and found.get("config_digest") in META_CONFIGS:
        del found["config_digest"]
    if FILE in found and "digest" not in found:
        raise ValueError("its model is a file without a digest")
    for name, choices in CHOICES.items():
        if name in found and found[name] not in choices:
            raise ValueError(f"its model's {name} should be one of {choices}")
    return found


def made_with_weights(recipe: Recipe) -> bool:
    """Whether the embedder of a recipe runs a pretrained model.

    One of another package says so by the digest of its weights, among its parameters.
    """
    known = PARAMETERS.get(recipe.embedder)
    return "digest" in (recipe.model if known is None else known)


def names_a_place(parameters: Mapping[str, Any]) -> str | None:
    """The first parameter whose text may be a path, an address or code; None where none is."""
    for name, value in parameters.items():
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and LIKE_A_PLACE.search(text) for text in texts):
            return name
    return None


def same_weights(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two models' parameters tell of the same weights and settings."""
    return all(mine.get(name) == theirs.get(name) for name in DIGESTS)


def _without_paths(embedder: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with a file's name for each path that an older version wrote."""
    found = dict(model)
    texts = {name: found[name] for name in (FILE, *PATHS.get(embedder, ()))
             if found.get(name) is not None}  # fmt: skip
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"its model's {name} should be a text, got {value!r:.60}")
        official = find_sam2(value) if name == "model_size" else None
        in_catalogue = official is not None and official.name == value
        if in_catalogue or (name == "model_name" and CLIP_NAME.fullmatch(value)):
            continue
        if name != FILE:
            del found[name]
        if name != "config":
            found[FILE] = PureWindowsPath(PurePosixPath(value).name).name or "unknown"
    return found
