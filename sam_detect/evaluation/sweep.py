"""The same evaluation over a grid of settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from sam_detect.config import known_settings
from sam_detect.errors import ConfigError
from sam_detect.evaluation.dataset import Dataset
from sam_detect.evaluation.evaluation import Evaluation
from sam_detect.evaluation.harness import Tick, evaluate, make_method
from sam_detect.evaluation.pipeline import EvaluationCache, PipelineMethod
from sam_detect.evaluation.run import Protocol, plan
from sam_detect.options import ROOMS, fields, options_of, parts_with
from sam_detect.pipeline import Pipeline

MOST_VARIANTS = 200
OF_PROTOCOL = {"shots": (int, "a whole number"), "iou": (float, "a number")}
OWN_KEYS = ("method", *OF_PROTOCOL)
"""What a sweep may vary in addition to the settings."""
OF_LIBRARIES = ("library", "store")
"""Settings that change nothing: every episode has a library of its own, in memory."""

Announce = Callable[[str], Tick]
"""Is told which variant comes next, and gives what its pictures are counted by."""


def sweep(
    dataset: Dataset,
    protocol: Protocol,
    grid: Sequence[Mapping[str, str]],
    *,
    make: Callable[[Mapping[str, str]], Pipeline],
    max_pixels: int,
    method: str = PipelineMethod.name,
    curve: Sequence[int] = (),
    announce: Announce = lambda what: lambda done, of: None,
) -> Iterator[Evaluation]:
    """Evaluates each variant; pictures are proposed and embedded once for all that agree in it.

    Args:
        grid: what to change for each, of :func:`variants`.
        make: gives the pipeline with the settings of a variant.
        max_pixels: larger pictures are refused.

    Raises:
        ConfigError: a value out of its range, or a protocol that does not fit the dataset.
        ImageError: a picture cannot be read.
    """
    cache = EvaluationCache()
    # All are made before any is run: what is wrong with the last should not cost an hour.
    pipelines = [PipelineMethod(make(_settings(variant)), cache) for variant in grid]
    methods = [variant.get("method", method) for variant in grid]
    protocols = [_varied(protocol, variant) for variant in grid]
    for name, pipeline, varied in zip(methods, pipelines, protocols, strict=True):
        make_method(name, pipeline)
        plan(dataset, varied)
    for variant, name, pipeline, varied in zip(grid, methods, pipelines, protocols, strict=True):
        found = evaluate(
            dataset,
            pipeline,
            varied,
            method=name,
            curve=curve,
            max_pixels=max_pixels,
            tick=announce(", ".join(f"{key}={value}" for key, value in variant.items())),
        )
        yield replace(found, variant=dict(variant))


def variants(specs: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of the values of ``key=a,b`` texts; one empty one without any.

    A key that is given twice has all its values.
    Where fades are varied, a parameter that one of them does not have is left out for it, and
    combinations that are then the same are run once.

    Raises:
        ConfigError: a text that is no such list, a key that nothing has, or too many combinations.
    """
    values: dict[str, list[str]] = {}
    for key, listed in map(_parsed, _split(specs)):
        values[key] = list(dict.fromkeys([*values.get(key, []), *listed]))
    count = math.prod(len(of_key) for of_key in values.values())
    if count > MOST_VARIANTS:
        raise ConfigError(f"the sweep has {count} variants, at most {MOST_VARIANTS} are run")
    rows = (dict(zip(values, row, strict=True)) for row in itertools.product(*values.values()))
    fitting = [_fitting(row) for row in rows]
    return [row for index, row in enumerate(fitting) if row not in fitting[:index]]


def _fitting(variant: dict[str, str]) -> dict[str, str]:
    """The variant without options of other parts than those that it names."""
    for room in ROOMS:
        name = variant.get(room)
        if name is not None and name != "auto":
            known = options_of(room, name).model_fields
            others = {
                o for o in fields() if any(r == room for r, _ in parts_with(o))
            } - known.keys()
            variant = {key: value for key, value in variant.items() if key not in others}
    return variant


def _settings(variant: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in variant.items() if key not in OWN_KEYS}


def _split(specs: Sequence[str]) -> Iterator[str]:
    for spec in specs:
        yield from spec.split()


def _parsed(spec: str) -> tuple[str, list[str]]:
    key, equals, listed = spec.partition("=")
    key = key.strip().replace("-", "_")
    values = [value for value in listed.split(",") if value]
    of_stores = {o for o in fields() if any(room == "store" for room, _ in parts_with(o))}
    known = [*OWN_KEYS, *(n for n in known_settings() if n not in {*OF_LIBRARIES, *of_stores})]
    if key not in known:
        raise ConfigError(f"a sweep has no '{key}' to vary (it has: {', '.join(known)})")
    if not equals or not values:
        raise ConfigError(f"--sweep takes key=a,b,... such as sigma=10,30, got '{spec}'")
    return key, values


def _varied(protocol: Protocol, variant: Mapping[str, str]) -> Protocol:
    changed = {}
    for key, (kind, what) in OF_PROTOCOL.items():
        if key in variant:
            try:
                changed[key] = kind(variant[key])
            except ValueError:
                raise ConfigError(f"{key} is {what}, got '{variant[key]}'") from None
    return replace(protocol, **changed)
