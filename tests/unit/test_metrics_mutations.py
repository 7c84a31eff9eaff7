"""The tests of the metrics can fail: each of these errors, planted in the source, is caught.

A mutation replaces one piece of a module's text. The changed module takes the place of the true one
in a test's eyes, and the test must fail. The same test must pass on the text unchanged, loaded in
the same way, or its failure would prove nothing.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import test_boundary as boundary
import test_comparison as comparisons
import test_metrics as figures
import test_metrics_coco as coco
import test_metrics_embedding as embedding
import test_metrics_semantic as semantic

PACKAGE = "sam_detect.evaluation"
CAUGHT = (AssertionError, TypeError, pytest.fail.Exception)


PIXELS = """\
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "iou": counts.jaccard,
"""


class Mutation(NamedTuple):
    """``old`` becomes ``new`` in a module, and ``test`` (with its parameters) sees it."""

    module: str
    old: str
    new: str
    test: Callable[..., None]
    arguments: tuple[Any, ...] = ()


MUTATIONS = [
    # -- edges
    Mutation("scripts.dev.boundary", "2 * precision * recall / (precision + recall)", "precision",
             boundary.test_half_of_the_edge_is_half_of_the_figure),
    Mutation("scripts.dev.boundary", "across**2 <= radius**2", "across**2 < radius**2",
             boundary.test_equal_masks_and_edges_within_the_tolerance_agree),
    Mutation("scripts.dev.boundary", " | (here != both)", "",
             boundary.test_it_is_what_the_definition_says, (3,)),
    Mutation("scripts.dev.boundary", "edges[1] & near[0]", "edges[0] & near[0]",
             boundary.test_it_is_what_the_definition_says, (0,)),
    Mutation("scripts.dev.boundary", "float(not any(counts))", "0.0",
             boundary.test_what_is_empty_agrees_with_nothing_but_itself),
    # -- counts
    Mutation("comparison", "(self.tp, self.tp + self.fp)", "(self.tp, self.tp + self.fn)",
             figures.test_figures_of_counts),
    Mutation("comparison", "(self.tp, self.tp + self.fn)", "(self.tp, self.tp + self.fp)",
             figures.test_figures_of_counts),
    Mutation("comparison", "2 * self.tp + self.fp + self.fn", "2 * self.tp + self.fp",
             figures.test_figures_of_counts),
    Mutation("comparison", "(self.tp, self.tp + self.fp + self.fn)", "(self.tp, self.tp + self.fp)",
             figures.test_figures_of_counts),
    Mutation("comparison", "self.fn + other.fn", "self.fn", figures.test_figures_of_counts),
    Mutation("comparison", '"recall": self.recall', '"recall": self.precision',
             figures.test_figures_of_counts),
    Mutation("comparison", "sums.get(label, Counts()) + counts", "counts",
             figures.test_pooling_adds_up_pictures_per_class),
    Mutation("comparison", "sum(per_class.values(), Counts())", "[*per_class.values()][0]",
             figures.test_pooling_adds_up_pictures_per_class),
    Mutation("comparison", " if counts.tp + counts.fn]", "]",
             figures.test_micro_figures_weigh_objects_and_macro_figures_classes),
    Mutation("comparison", "part / whole if whole else None", "part / whole if whole else 0.0",
             figures.test_micro_figures_weigh_objects_and_macro_figures_classes),
    # -- comparison
    Mutation("comparison", "if not o.crowd and o.id not in shown)", "if not o.crowd)",
             comparisons.test_an_example_found_again_is_excused_unless_it_is_misnamed, (False,)),
    Mutation("comparison", "label in (None, o.label)", "True",
             comparisons.test_an_example_found_again_is_excused_unless_it_is_misnamed, (True,)),
    Mutation("comparison", "label in (None, o.label)", "label == o.label",
             comparisons.test_an_example_found_again_is_excused_unless_it_is_misnamed, (True,)),
    Mutation("comparison", "on_examples >= iou_threshold", "on_examples >= 0.5",
             comparisons.test_an_example_excuses_from_its_threshold_on),
    Mutation("comparison", "crowds, boxes, crowd=True", "crowds, boxes",
             comparisons.test_a_crowd_excuses_what_lies_mostly_in_it),
    Mutation("comparison", "in_crowds >= iou_threshold", "in_crowds > 0",
             comparisons.test_a_crowd_excuses_what_lies_mostly_in_it),
    Mutation("comparison", "if boxes:", "if not boxes:",
             comparisons.test_boxes_are_compared_where_asked),
    Mutation("comparison", "overlap(found.proposals,", "overlap(found.masks,",
             comparisons.test_proposals_are_not_detections),
    # -- matching
    Mutation("comparison", "-comparison.scores", "comparison.scores",
             figures.test_the_best_scored_takes_the_object_and_a_duplicate_is_false),
    Mutation("comparison", "            free[:, best] = 0.0\n", "",
             figures.test_the_best_scored_takes_the_object_and_a_duplicate_is_false),
    Mutation("comparison", "row == row.max())[-1]", "row == row.max())[0]",
             figures.test_ties_go_to_the_first_detection_and_the_last_object),
    Mutation("comparison", "row[best] >= iou_threshold", "row[best] > iou_threshold",
             figures.test_the_threshold_itself_is_enough),
    Mutation("comparison", "free >= iou_threshold", "free > iou_threshold",
             figures.test_the_threshold_itself_is_enough),
    Mutation("comparison", "np.where(same, comparison.iou, 0.0)", "comparison.iou",
             figures.test_another_label_finds_nothing_and_unknown_is_not_false),
    Mutation("comparison", "false = named & ~found", "false = ~found",
             figures.test_another_label_finds_nothing_and_unknown_is_not_false),
    Mutation("comparison", " & ~comparison.excused", "",
             figures.test_an_excused_detection_may_find_an_object_and_is_else_not_counted),
    Mutation("comparison", "ious[found] = comparison.iou[found, objects[found]]",
             "ious[found] = comparison.iou[found].max(axis=1)",
             figures.test_a_detection_whose_best_object_is_taken_takes_the_next),
    Mutation("comparison", "[missed], Counts(fn=1))", "[missed], Counts(fp=1))",
             figures.test_the_threshold_itself_is_enough),
    Mutation("comparison", "0 < iou_threshold <= 1", "0 <= iou_threshold <= 1",
             figures.test_a_threshold_that_everything_or_nothing_reaches_is_refused, (0,)),
    Mutation("comparison", "-comparison.scores", "comparison.scores",
             coco.test_of_duplicates_coco_takes_the_same_one),
    # -- figures of comparisons
    Mutation("metrics", "each.ious[each.objects >= 0]", "each.ious",
             figures.test_mean_iou_is_of_detections_that_found_something),
    Mutation("metrics", "np.linspace(0.5, 0.95, 10)", "np.linspace(0.5, 1, 11)",
             figures.test_msa_in_the_head),
    Mutation("metrics", "counts.jaccard for", "counts.f1 for",
             figures.test_msa_in_the_head),
    Mutation("metrics", "if scores[0] is not None:", "if True:",
             figures.test_msa_leaves_out_pictures_that_say_nothing),
    Mutation("metrics", "(best >= iou_threshold)", "(best > iou_threshold)",
             figures.test_proposals_are_counted_apart_from_names),
    Mutation("metrics", "np.mean(counts)", "np.median(counts)",
             figures.test_proposals_are_counted_apart_from_names),
    Mutation("metrics", '"precision": counts.precision', '"precision": counts.recall',
             figures.test_the_scores_of_an_episode),
    Mutation("metrics", '"f1_macro": macro(per_class, "f1")', '"f1_macro": counts.f1',
             figures.test_the_scores_of_an_episode),
    # -- confusion
    Mutation("metrics", "(-comparison.scores, said == last)",
             "(said == last, -comparison.scores)",
             figures.test_named_detections_choose_before_unknown_ones),
    Mutation("metrics", "(objects >= 0) | ~comparison.excused", "objects >= -1",
             figures.test_confusion_in_the_head),
    Mutation("metrics", "(there[objects[counted]], said[counted])",
             "(said[counted], there[objects[counted]])", figures.test_confusion_in_the_head),
    Mutation("metrics", "table[:, last + 1]", "table[:, last]",
             figures.test_confusion_in_the_head),
    # -- seeds
    Mutation("metrics", "statistics.stdev", "statistics.pstdev",
             figures.test_spread_over_seeds),
    Mutation("metrics", "statistics.fmean", "statistics.median",
             figures.test_spread_over_seeds),
    Mutation("metrics", "if value is not None", "if value", figures.test_spread_over_seeds),
    # -- COCO
    Mutation("metrics.coco", "int(_aside(item, each))", "0",
             coco.test_examples_found_again_are_not_false_but_misnamed_ones_are),
    Mutation("metrics.coco", "enumerate(annotations, start=1)", "enumerate(annotations)",
             coco.test_half_of_the_objects_found_is_half_of_the_recalls),
    Mutation("metrics.coco", "MAX_DETECTIONS = 100", "MAX_DETECTIONS = 101",
             coco.test_only_the_hundred_best_of_a_picture_and_class_are_looked_at, (100, 0)),
    Mutation("metrics.coco", "MAX_DETECTIONS = 100", "MAX_DETECTIONS = 99",
             coco.test_only_the_hundred_best_of_a_picture_and_class_are_looked_at, (99, 1)),
    Mutation("metrics.coco", "precision[0].mean()", "precision[1].mean()",
             coco.test_ap50_asks_for_less_overlap_than_ap),
    Mutation("metrics.coco", "float(recall.mean())", "float(recall[0].mean())",
             coco.test_ap50_asks_for_less_overlap_than_ap),
    Mutation("metrics.coco", "float(precision.mean())", "float(precision[5].mean())",
             coco.test_ap50_asks_for_less_overlap_than_ap),
    Mutation("metrics.coco", '"bbox" if boxes', '"bbox" if not boxes',
             coco.test_boxes_are_compared_where_asked),
    Mutation("metrics.coco", "        boxes[:, 2:] -= boxes[:, :2]\n", "",
             coco.test_boxes_are_compared_where_asked),
    Mutation("metrics.coco", "float(found.scores[i])", "-float(found.scores[i])",
             coco.test_a_false_one_before_the_true_ones_costs_precision),
    Mutation("metrics.coco", " if not _aside(item, o)}", "}", coco.test_no_objects_to_find),
    Mutation("metrics.coco", "precision[:, :, k].mean()", "precision[:, :, 0].mean()",
             coco.test_classes_are_averaged_and_those_without_objects_left_out),
    # -- embeddings
    Mutation("metrics.embedding", "negative / 2", "negative",
             embedding.test_separability_in_the_head),
    Mutation("metrics.embedding", "if both_kinds_apart else", "if False else",
             embedding.test_separability_looks_at_different_pictures_where_it_can),
    Mutation("metrics.embedding", "(names[rows, None] != NO_OBJECT) | (names[None, :] !=",
             "(names[rows, None] != NO_OBJECT) & (names[None, :] !=",
             embedding.test_separability_in_the_head),
    Mutation("metrics.embedding", "[None, :] > np.arange", "[None, :] >= np.arange",
             embedding.test_separability_looks_at_different_pictures_where_it_can),
    Mutation("metrics.embedding", "BINS = 2**18 + 1", "BINS = 31",
             embedding.test_real_numbers_give_what_every_pair_gives, (0.5,)),
    Mutation("metrics.embedding", "slice(start, start + step)", "slice(start, start + step - 1)",
             embedding.test_blocks_do_not_matter),
    Mutation("metrics.embedding",
             "cosines[np.arange(len(cosines)), np.arange(len(names))[rows]] = -np.inf", "pass",
             embedding.test_neighbours_are_sought_in_other_pictures),
    Mutation("metrics.embedding", "cosines[inside & elsewhere[:, None]] = -np.inf", "pass",
             embedding.test_neighbours_are_sought_in_other_pictures),
    Mutation("metrics.embedding", "axis=1) >= k", "axis=1) > k",
             embedding.test_neighbours_are_sought_in_other_pictures),
    Mutation("metrics.embedding", "k: int = 5", "k: int = 6",
             embedding.test_purity_asks_for_five_neighbours),
    Mutation("metrics.embedding", "hits / seen", "hits / k",
             embedding.test_purity_in_the_head),
    Mutation("metrics.embedding", "(names[rows] != NO_OBJECT) & (same", "(same",
             embedding.test_purity_in_the_head),
    Mutation("metrics.embedding", "(outer - inner, widest", "(inner - outer, widest",
             embedding.test_silhouette_in_the_head),
    Mutation("metrics.embedding", " - np.einsum(\"nd,nd->n\", exact, exact)", "",
             embedding.test_silhouette_in_the_head),
    Mutation("metrics.embedding", "distances.min(axis=1)", "products.max(axis=1)",
             embedding.test_silhouette_in_the_head),
    Mutation("metrics.embedding", "objects & (others > 0) & (widest", "objects & (widest",
             embedding.test_silhouette_in_the_head),
    Mutation("metrics.embedding", "values[objects].mean()", "values.mean()",
             embedding.test_silhouette_in_the_head),
    # -- calibration
    Mutation("metrics.calibration", "counted = found | matches.false", "counted = found",
             figures.test_a_reliability_bin_is_of_the_named_and_counted),
    Mutation("metrics.calibration", "np.searchsorted(edges, confidence)",
             'np.searchsorted(edges, confidence, "right")',
             figures.test_a_reliability_bin_is_of_the_named_and_counted),
    Mutation("metrics.calibration", "float(hit[mine].mean())", "float(hit.mean())",
             figures.test_a_reliability_bin_is_of_the_named_and_counted),
    Mutation("metrics.calibration", "each.count * abs(each.precision - each.confidence)",
             "abs(each.precision - each.confidence)",
             figures.test_expected_calibration_error_is_the_formula),
    # -- pixels
    Mutation("metrics", "|= masks.crop(index)", "^= masks.crop(index)",
             semantic.test_pixels_in_the_head),
    Mutation("metrics", "covered & ~there, there & ~covered",
             "covered & ~there, covered & ~there",
             semantic.test_precision_and_recall_are_not_each_other),
    Mutation("metrics", "name == label]", "name in (label, None)]",
             semantic.test_pixels_in_the_head),
    Mutation("metrics", "found.masks[said]) & counted", "found.masks[said])",
             semantic.test_examples_and_crowds_count_neither_way),
    Mutation("metrics", "counted = there | ~", "counted = ~",
             semantic.test_examples_and_crowds_count_neither_way),
    Mutation("metrics", "if not o.crowd and o.id not in shown]", "if not o.crowd]",
             semantic.test_examples_and_crowds_count_neither_way),
    Mutation("metrics", PIXELS, PIXELS.replace("counts.precision", "counts.recall"),
             semantic.test_precision_and_recall_are_not_each_other),
    Mutation("metrics", 'macro(per_class, "precision")', 'macro(per_class, "recall")',
             semantic.test_precision_and_recall_are_not_each_other),
    Mutation("metrics", '"mean_iou": macro(per_class, "jaccard")',
             '"mean_iou": macro(per_class, "f1")', semantic.test_pixels_in_the_head),
    Mutation("metrics", '"iou": counts.jaccard,\n        "precision_macro"',
             '"iou": counts.f1,\n        "precision_macro"', semantic.test_pixels_in_the_head),
]  # fmt: skip


def full(module: str) -> str:
    """A module's whole name; those of ``scripts`` have it already."""
    return module if module.startswith("scripts.") else f"{PACKAGE}.{module}"


def source_of(module: str) -> str:
    return Path(str(importlib.import_module(full(module)).__file__)).read_text("utf-8")


def loaded(module: str, source: str) -> types.ModuleType:
    """A module from its text, beside the true one and under its name."""
    made = types.ModuleType(full(module))
    exec(compile(source, module, "exec"), made.__dict__)
    return made


def put_in_place(
    monkeypatch: pytest.MonkeyPatch, module: str, source: str, test: Callable[..., None]
) -> None:
    """Whatever the test's module imported from the true module, it now has from the text."""
    true = importlib.import_module(full(module))
    made = loaded(module, source)
    eyes = importlib.import_module(test.__module__)
    replaced = 0
    for name, value in list(vars(eyes).items()):
        if value is true:
            monkeypatch.setattr(eyes, name, made)
        elif getattr(value, "__module__", None) == true.__name__:
            monkeypatch.setattr(eyes, name, vars(made)[name])
            replaced += 1
    assert replaced, f"{eyes.__name__} looks at nothing of {module}"


@pytest.mark.parametrize(
    "mutation", MUTATIONS, ids=[f"{m.module}: {m.old.strip()} -> {m.new}" for m in MUTATIONS]
)
def test_a_planted_error_is_caught(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(mutation.module)
    assert mutation.old in source, "the source has changed: plant this error in its new text"
    changed = source.replace(mutation.old, mutation.new, 1)
    put_in_place(monkeypatch, mutation.module, changed, mutation.test)
    with pytest.raises(CAUGHT):
        mutation.test(*mutation.arguments)


@pytest.mark.parametrize(
    ("module", "test", "arguments"),
    sorted({(m.module, m.test, m.arguments) for m in MUTATIONS}, key=str),
)
def test_what_catches_errors_passes_without_them(
    module: str,
    test: Callable[..., None],
    arguments: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_in_place(monkeypatch, module, source_of(module), test)
    test(*arguments)


def test_every_module_of_the_metrics_has_planted_errors() -> None:
    """A new module of metrics needs mutations of its own."""
    metrics = importlib.import_module(f"{PACKAGE}.metrics")
    files = Path(str(metrics.__file__)).parent.glob("[!_]*.py")
    assert {f"metrics.{file.stem}" for file in files} <= {m.module for m in MUTATIONS}
