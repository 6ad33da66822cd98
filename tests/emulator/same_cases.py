"""The CPU tests of the operations that also apply to a device, and the modules they come from.

Left out are those that are about host memory (strided inputs, threads, forks), about boxes and scores that only the
CPU looks at before it starts, and the longest.
"""

# ruff: noqa: F401  (pytest finds the tests by their names in the files that take all of these)
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
    test_oks,
    test_oks_nms,
    test_opinion_features,
    test_out,
    test_score,
)
from ops.test_box_nms import (
    test_a_box_within_another,
    test_a_box_without_an_area_overlaps_nothing,
    test_a_suppressed_box_does_not_suppress,
    test_an_iou_of_exactly_the_threshold_does_not_suppress,
    test_any_boxes_as_the_reference,
    test_boxes_of_different_frames_do_not_meet,
    test_boxes_of_equal_score_keep_the_lower_index,
    test_boxes_of_infinite_score_have_their_order,
    test_boxes_that_touch_do_not_overlap,
    test_boxes_too_large_for_their_area,
    test_many_boxes_in_one_place,
    test_no_boxes_to_suppress,
)
from ops.test_crop import (
    test_a_batch_of_frames_is_a_list_of_frames,
    test_a_box_of_the_crops_size_copies_its_pixels,
    test_a_large_crop_of_a_large_frame,
    test_any_boxes_crop_as_the_reference,
    test_boxes_without_an_area,
    test_every_width_of_crop,
    test_frames_of_a_pixel_or_two,
    test_frames_of_different_sizes,
    test_no_boxes,
    test_outside_the_image_is_black_before_the_normalization,
    test_the_border_fades_over_one_pixel,
    test_the_channels_leave_as_rgb,
    test_the_short_side_is_grown_about_the_center_and_then_both_are_padded,
)
from ops.test_decode import (
    test_a_constant_map_decodes_to_its_first_cells,
    test_a_map_without_a_finite_value_gives_nan_and_spares_its_neighbors,
    test_alignments_and_transforms,
    test_all_negative_maps_have_their_peak_where_the_largest_is,
    test_an_average_beyond_the_largest_float_does_not_win,
    test_any_maps_decode_as_the_reference,
    test_every_number_of_keypoints,
    test_every_number_of_people,
    test_every_width,
    test_large_image_coordinates_keep_a_thousandth_of_a_pixel,
    test_negative_and_positive_zero_are_equal,
    test_one_finite_value_is_the_peak_and_has_no_second,
    test_the_average_is_rounded_to_even_in_half_precision,
    test_the_mirrored_maps_alone,
    test_the_peak_of_half_precision_maps_is_the_unrounded_averages,
    test_the_two_largest_values_at_every_pair_of_cells,
    test_ties_go_to_the_lowest_index,
    test_values_that_are_not_finite_are_never_peaks,
)
from ops.test_decode_dark import (
    test_a_long_step_is_cut_to_one_pixel,
    test_a_whole_gaussian_gives_its_center_back,
    test_gaussian_targets_against_float64,
    test_no_step_on_a_flat_log,
    test_peaks_on_the_border_of_the_map,
    test_the_blur_ends_at_its_radius,
    test_the_peak_is_the_one_before_the_blur,
)
from ops.test_decode_mirroring import (
    test_averaging_with_a_perfect_mirror_image_changes_nothing,
    test_dark_on_targets_mirrors_to_a_ten_thousandth,
    test_hrnet_keeps_column_zero,
    test_hrnet_leaves_a_quarter_of_a_heatmap_pixel,
    test_mirrored_maps_decode_to_mirrored_points,
)
from ops.test_decode_simcc import (
    test_a_bin_is_its_index_over_the_split,
    test_an_axis_without_a_finite_value_gives_nan_and_spares_its_neighbors,
    test_any_vectors_decode_as_the_reference,
    test_bins_of_equal_value_go_to_the_lowest,
    test_bins_that_are_not_finite_never_win,
    test_the_heat_is_the_smaller_of_the_two_largest_values,
    test_the_mirrored_vectors_lie_half_a_pixel_beside,
)
from ops.test_forest import (
    test_any_trees_give_the_references_values,
    test_large_sums_reach_zero_and_one,
    test_nan_goes_where_the_split_says,
    test_the_threshold_itself_goes_left,
    test_trees_of_32_leaves_are_the_largest,
    test_trees_of_one_leaf_add_their_values,
)
from ops.test_geometry import (
    test_a_crop_that_is_the_image_keeps_its_indices,
    test_a_pixel_survives_crop_target_and_decode,
    test_the_transform_leads_back_from_the_crop,
    test_with_the_mirrored_crop_a_pixel_survives_as_well,
)
from ops.test_map_features import (
    test_a_constant_map,
    test_a_gaussian_gives_its_standard_deviation,
    test_a_map_without_a_positive_peak_is_empty,
    test_a_second_peak_counts_from_a_quarter_of_the_heat,
    test_a_single_cell,
    test_any_finite_maps_have_the_references_features,
    test_any_poses_have_the_references_features,
    test_half_the_heat_itself_counts,
    test_neighbors_of_a_peak_are_no_peaks,
    test_the_flips_features,
    test_the_mirrored_person_has_the_same_features,
)
from ops.test_oks import (
    test_a_point_that_is_not_finite_is_similar_to_nothing,
    test_by_hand,
    test_nothing_visible_is_similar_to_nothing,
    test_the_area_and_the_mask_belong_to_the_second_poses,
    test_without_an_area_only_equal_points_are_similar,
)
from ops.test_oks_nms import (
    test_a_threshold_of_zero_keeps_those_with_nothing_in_common,
    test_equal_scores_keep_the_lower_index,
    test_infinite_scores_have_their_order,
    test_more_than_twenty_poses_in_a_place_are_all_seen,
    test_poses_of_different_frames_do_not_meet,
    test_poses_without_points_survive_beside_each_other,
    test_the_area_of_a_pair_is_the_mean_of_theirs,
    test_the_threshold_itself_does_not_suppress,
    test_what_is_suppressed_does_not_suppress,
)
from ops.test_opinion_features import (
    test_any_opinions_have_the_references_features,
    test_differences_have_a_largest_value,
    test_missing_places_are_farthest,
)
from ops.test_out import (
    test_crop_fills_the_arrays_that_it_is_given,
    test_decode_fills_the_arrays_that_it_is_given,
    test_kept_poses_come_in_the_front_of_their_array,
    test_scores_and_similarities_fill_their_arrays,
    test_the_average_may_be_written_in_place,
)
from ops.test_score import (
    test_a_score_that_is_not_a_number_stays_with_its_pose,
    test_any_scores_as_the_reference,
    test_many_small_visibilities_add_up,
    test_nobody_scores_nothing,
    test_visibilities_that_sum_to_less_than_a_millionth_score_zero,
)

# Names that several files use.
test_any_maps_decode_dark_as_the_reference = test_decode_dark.test_any_maps_decode_as_the_reference
test_any_poses_have_the_references_oks = test_oks.test_any_poses_as_the_reference
test_any_poses_are_suppressed_as_the_reference = test_oks_nms.test_any_poses_as_the_reference
test_nobody_is_similar = test_oks.test_no_people
test_nobody_is_suppressed = test_oks_nms.test_no_people
test_scores_by_hand = test_score.test_by_hand

MODULES = (test_box_nms, test_crop, test_decode, test_decode_dark, test_decode_mirroring, test_decode_simcc, test_forest,
           test_geometry, test_map_features, test_oks_nms, test_oks, test_opinion_features, test_out,
           test_score)  # fmt: skip


@contextmanager
def operations_taken_from(replacement: Any) -> Iterator[None]:
    """Lets the tests call these operations where they say `ops`."""
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "ops", replacement)
        yield
