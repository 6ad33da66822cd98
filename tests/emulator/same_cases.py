"""Tests of tests/ops that also run on a device, named test_MODULE_TEST, with `ops` replaced by device operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ops import (
    test_box_nms,
    test_crop,
    test_decode,
    test_decode_dark,
    test_decode_mirroring,
    test_decode_simcc,
    test_forest,
    test_geometry,
    test_map_features,
    test_nms,
    test_oks,
    test_oks_nms,
    test_opinion_features,
    test_out,
    test_score,
)

# Tests of host memory (strides, threads, forks), of checks and values that only exist on the host, and the longest.
HOST_ONLY = {
    test_box_nms: ("far_from_the_origin", "strided_and_read_only_boxes"),
    test_crop: (
        "views_as_batches",
        "strided_and_read_only_frames",
        "float64_boxes_are_not_rounded_to_float32_first",
    ),
    test_decode: (
        "every_float16_value_is_read_exactly",
        "strided_read_only_and_fortran_ordered_inputs",
        "unaligned_maps",
    ),
    test_decode_dark: ("the_default_blur_is_two_cells",),
    test_decode_mirroring: ("targets_of_a_mirrored_crop_are_the_mirrored_targets",),
    test_decode_simcc: ("instruction_sets_match_the_reference", "threads_and_strides_do_not_change_results"),
    test_forest: (
        "predictions_match_lightgbm",
        "the_unchanged_arrays_are_valid",
        "invalid_trees_are_refused",
        "too_many_splits_are_refused_before_they_are_read",
        "a_forest_is_immutable",
        "threads_and_strides_do_not_change_results",
    ),
    test_geometry: (
        "the_error_of_other_refinements_is_bounded",
        "second_peak_is_exact_a_quarter_of_a_cell_off",
    ),
    test_map_features: (
        "non_finite_maps_are_refused",
        "feature_names_are_unique",
        "threads_do_not_change_results",
        "instruction_sets_match_the_reference",
        "strided_and_read_only_maps",
    ),
    test_nms: (),
    test_oks: (
        "the_epsilon_added_to_the_area_is_cocos",
        "similarities_match_pycocotools",
        "strided_and_read_only_inputs",
    ),
    test_oks_nms: ("the_default_threshold_is_nine_tenths", "strided_and_read_only_inputs"),
    test_opinion_features: ("features_may_be_nan",),
    test_out: (
        "the_average_does_not_depend_on_the_alignment_of_its_memory",
        "an_output_may_be_left_out",
        "out_avoids_allocations",
        "results_do_not_depend_on_the_number_of_threads",
        "calls_from_several_threads_do_not_interfere",
        "operations_work_after_a_fork",
        "fewer_threads_are_used_when_the_system_refuses_more",
        "invalid_thread_counts_are_refused",
        "unknown_instruction_sets_are_refused",
    ),
    test_score: ("strided_and_read_only_inputs",),
}

# pytest collects the tests from the files that import everything from here.
for _module, _host_only in HOST_ONLY.items():
    _tests = {name: test for name, test in vars(_module).items() if name.startswith("test_")}
    for _name in _host_only:
        del _tests[f"test_{_name}"]
    _prefix = _module.__name__.rpartition(".")[2]
    globals().update({name.replace("test", _prefix, 1): test for name, test in _tests.items()})


@contextmanager
def operations_taken_from(replacement: Any) -> Iterator[None]:
    """Replace oaks.ops in the modules of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for module in HOST_ONLY:
            patch.setattr(module, "ops", replacement, raising=False)  # test_nms uses that of two others
        yield
