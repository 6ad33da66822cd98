"""The figures of the paper (Zhao et al., Information Sciences 537, 2020), for comparison with measured ones."""

from __future__ import annotations

SETTING = "COCO val2017, ResNet-101 with FPN at 384 x 288, trained on COCO train2017"

_EIGHT = ("AP", "AP50", "AP75", "APM", "APL", "AR", "ARM", "ARL")


def _row(figures: tuple[str, ...], *values: float) -> dict[str, float]:
    return {figure: round(value / 100, 4) for figure, value in zip(figures, values, strict=True)}


NETWORKS = {
    ("HPE", "ground truth"): tuple(_row(_EIGHT, 74.8, 92.4, 81.4, 71.8, 79.9, 77.9, 74.4, 83.2).values()),
    ("HPE", "detected"): tuple(_row(_EIGHT, 72.9, 89.2, 79.4, 69.1, 79.9, 79.2, 74.3, 86.0).values()),
    ("OA-HPE", "ground truth"): tuple(_row(_EIGHT, 74.6, 92.4, 81.5, 71.4, 79.6, 77.4, 73.9, 82.7).values()),
    ("OA-HPE", "detected"): tuple(_row(_EIGHT, 72.6, 88.8, 79.2, 68.5, 79.7, 78.6, 73.5, 85.7).values()),
}
"""Table 1: AP AP50 AP75 APM APL AR ARM ARL under the conventional score, by network and boxes."""

GROUND_TRUTH_BOXES = {
    "conventional": _row(_EIGHT, 74.6, 92.4, 81.5, 71.4, 79.6, 77.4, 73.9, 82.8),
    "oaks": _row(_EIGHT, 74.8, 92.4, 81.7, 71.6, 80.0, 77.4, 73.9, 82.8),
    "oracle": _row(_EIGHT, 77.2, 93.1, 83.2, 73.6, 82.6, 77.4, 73.9, 82.8),
    "true_ks_all_visible": _row(_EIGHT, 74.7, 92.9, 81.9, 71.5, 79.6, 77.4, 73.9, 82.8),
    "true_ks_predicted_visibility": _row(_EIGHT, 75.6, 93.0, 82.4, 72.0, 81.0, 77.4, 73.9, 82.8),
    "heat_true_visibility": _row(_EIGHT[:6], 74.3, 92.5, 81.3, 70.8, 79.6, 77.4),
    "oaks_true_visibility": _row(_EIGHT[:6], 75.1, 92.5, 81.8, 71.8, 80.2, 77.4),
}
"""Tables 3, 4 and 6: by score."""

KS_NET_DEVIATIONS = (0.05, 0.05, 0.05, 0.04, 0.07, 0)
"""Table 4: deviations over ten trainings of KS-net, in points of AP, AP50, AP75, APM, APL and AR."""

DETECTED_BOXES = {
    "conventional": _row(
        ("AP", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"),
        72.6, 79.2, 68.5, 79.7, 78.6, 92.9, 84.2, 73.5, 85.7,
    ),
    "oaks": _row(
        ("AP", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"),
        72.6, 79.2, 68.5, 79.9, 78.7, 93.0, 84.4, 73.7, 85.7,
    ),
}  # fmt: skip
"""Table 7."""

VISIBILITY_ACCURACY = (
    0.932, 0.930, 0.927, 0.885, 0.884, 0.944, 0.948, 0.892, 0.900, 0.876, 0.885, 0.903, 0.906, 0.922, 0.923, 0.934, 0.930,
)  # fmt: skip
"""Table 2, in COCO's order of keypoints."""

HEAT_AGAINST_KS = {"left_eye": 0.018, "left_wrist": 0.210, "left_knee": 0.061}
"""Figure 5: Pearson's r of heat and true KS."""

CLASS_COUNTS = {"almost": 922, "largely": 1775, "slightly": 2745, "none": 910}
"""Table 8."""

CLASS_GAINS = {
    "ground truth": {"almost": 0.042, "largely": 0.028},
    "detected": {"almost": 0.034, "largely": 0.020},
}
"""Figures 11 and 12: AP at OKS .75 of OAKS minus that of the conventional score; 0 in the other two classes."""

KS_NET_BACKBONES = {
    "conv2": ("2 conv", _row(_EIGHT, 74.2, 92.3, 81.2, 71.1, 79.3, 77.4, 73.9, 82.8)),
    "alexnet": ("AlexNet", _row(_EIGHT, 74.8, 92.4, 81.6, 71.6, 79.9, 77.4, 73.9, 82.8)),
    "vgg19": ("VGG-19", _row(_EIGHT, 75.0, 92.4, 81.8, 71.7, 80.0, 77.4, 73.9, 82.9)),
    "googlenet": ("GoogLeNet", _row(_EIGHT, 74.8, 92.4, 81.7, 71.5, 79.9, 77.4, 73.9, 82.9)),
    "resnet18": ("ResNet-18", _row(_EIGHT, 75.1, 92.5, 81.9, 71.9, 80.3, 77.4, 73.9, 82.8)),
    "resnet50": ("ResNet-50", _row(_EIGHT, 74.6, 92.4, 81.6, 71.5, 79.7, 77.4, 73.9, 82.8)),
}
"""Table 5, all with true visibility: title and figures."""

OTHER_ESTIMATORS = {
    "first estimator, own score": (0.274, 0.823, 0.933, 0.981),
    "first estimator, OAKS": (0.386, 0.883, 0.938, 0.973),
    "second estimator, own score": (0.237, 0.824, 0.941, 0.981),
    "second estimator, OAKS": (0.402, 0.900, 0.950, 0.981),
}
"""Table 9: AP at OKS .75 by occlusion level."""
