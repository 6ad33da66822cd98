"""Naive references for every operation of oaks.ops, in plain Python and NumPy and in float64.

Nothing here is fast and nothing is shared with the package: a test that compares with it compares two
programs. Where a value is defined in float32 (the average of two maps, and so the heat), it is computed so.
"""

from __future__ import annotations

import math

import numpy as np


def mirrored_back(mirrored, flip_pairs=None, alignment="half_pixel"):
    """(N,K,h,w) mirrored-back maps: columns reversed, pairs exchanged."""
    order = list(range(mirrored.shape[1]))
    for left, right in flip_pairs or ():
        order[left], order[right] = right, left
    back = mirrored[:, order, :, ::-1].astype(np.float32)
    if alignment == "hrnet":
        shifted = back.copy()
        shifted[..., 1:] = back[..., :-1]
        back = shifted
    return back


def average(heatmaps, mirrored=None, *, flip_pairs=None, alignment="half_pixel"):
    """(N,K,h,w) float32: mean of the maps and the mirrored-back maps; without mirrored, the maps."""
    maps = heatmaps.astype(np.float32)
    if mirrored is None:
        return maps
    with np.errstate(over="ignore", invalid="ignore"):
        return np.float32(0.5) * (maps + mirrored_back(mirrored, flip_pairs, alignment))


def largest(values, leaving_out=None):
    """Flat index of the largest finite value, ties to the lowest index; None if no value is finite."""
    best = None
    for index, value in enumerate(values):
        if index != leaving_out and math.isfinite(value) and (best is None or value > values[best]):
            best = index
    return best


def second_peak_step(heatmap, x, y):
    """Offset of a quarter pixel towards the largest of the other cells."""
    width = heatmap.shape[1]
    second = largest(heatmap.ravel().tolist(), leaving_out=y * width + x)
    if second is None:
        return 0.0, 0.0
    dx, dy = second % width - x, second // width - y
    distance = math.hypot(dx, dy)
    return 0.25 * dx / distance, 0.25 * dy / distance


def gradient_step(heatmap, x, y):
    """Offset of a quarter pixel per axis towards the larger neighbor; 0 where one is outside the map."""

    def side(before, after):
        return 0.25 if after > before else -0.25 if after < before else 0.0

    height, width = heatmap.shape
    return (
        side(heatmap[y, x - 1], heatmap[y, x + 1]) if 0 < x < width - 1 else 0.0,
        side(heatmap[y - 1, x], heatmap[y + 1, x]) if 0 < y < height - 1 else 0.0,
    )


def log_blurred(heatmap, x, y, sigma):
    """(3,3) log of the Gaussian-weighted sums around (x, y); border values are repeated outside the map."""
    height, width = heatmap.shape
    radius = math.ceil(2.5 * sigma)
    values = np.where(np.isfinite(heatmap), heatmap, 0).astype(np.float64)
    rows, columns = np.mgrid[:height, :width]
    patch = np.empty((3, 3))
    for j in range(3):
        for i in range(3):
            center_x, center_y = min(max(x + i - 1, 0), width - 1), min(max(y + j - 1, 0), height - 1)
            far_x, far_y = columns - center_x, rows - center_y
            weights = np.exp(-(far_x**2 + far_y**2) / (2 * sigma**2))
            weights[(abs(far_x) > radius) | (abs(far_y) > radius)] = 0
            patch[j, i] = math.log(max(float((weights * values).sum()), 1e-10))
    return patch


def taylor(patch):
    """Gradient (2,) and Hessian (2,2) at the center of a (3,3) patch, by central differences."""
    gradient = np.array([(patch[1, 2] - patch[1, 0]) / 2, (patch[2, 1] - patch[0, 1]) / 2])
    xx = patch[1, 2] - 2 * patch[1, 1] + patch[1, 0]
    yy = patch[2, 1] - 2 * patch[1, 1] + patch[0, 1]
    xy = (patch[2, 2] - patch[0, 2] - patch[2, 0] + patch[0, 0]) / 4
    return gradient, np.array([[xx, xy], [xy, yy]])


def dark_step(heatmap, x, y, sigma):
    """Newton step on the log of the blurred map, at most a pixel per axis; (0, 0) without a maximum."""
    gradient, hessian = taylor(log_blurred(heatmap, x, y, sigma))
    determinant = hessian[0, 0] * hessian[1, 1] - hessian[0, 1] ** 2
    if not (hessian[0, 0] < 0 and determinant > 1e-12):
        return 0.0, 0.0
    step = -np.linalg.solve(hessian, gradient)
    return float(np.clip(step[0], -1, 1)), float(np.clip(step[1], -1, 1))


def refined_peak(heatmap, refine="second_peak", blur_sigma=2.0):
    """(x, y, heat) of one (h,w) map, in heatmap pixels; all NaN if no value is finite."""
    peak = largest(heatmap.ravel().tolist())
    if peak is None:
        return math.nan, math.nan, math.nan
    y, x = divmod(peak, heatmap.shape[1])
    if refine == "second_peak":
        dx, dy = second_peak_step(heatmap, x, y)
    elif refine == "gradient":
        dx, dy = gradient_step(heatmap, x, y)
    elif refine == "dark":
        dx, dy = dark_step(heatmap, x, y, blur_sigma)
    else:
        assert refine == "none"
        dx, dy = 0.0, 0.0
    return x + dx, y + dy, float(heatmap[y, x])


def to_crop(index, cells, pixels, alignment):
    """Crop pixel of a heatmap index on one axis, with `cells` heatmap cells over `pixels` crop pixels."""
    if alignment == "half_pixel":
        return pixels / cells * (index + 0.5) - 0.5
    if alignment == "hrnet":
        return pixels / cells * index
    assert alignment == "udp"
    return index * (pixels - 1) / (cells - 1) if cells > 1 else index * 0.0


def to_heatmap(crop, cells, pixels, alignment):
    """Heatmap index of a crop pixel: the center of a target made with this alignment."""
    if alignment == "half_pixel":
        return (crop + 0.5) * cells / pixels - 0.5
    if alignment == "hrnet":
        return crop * cells / pixels
    assert alignment == "udp"
    return crop * (cells - 1) / (pixels - 1)


def decode(
    heatmaps,
    mirrored=None,
    *,
    flip_pairs=None,
    refine="second_peak",
    alignment="half_pixel",
    crop_size=None,
    transforms=None,
    blur_sigma=2.0,
):
    """points (N,K,2) float64, heat (N,K) float32 and the float32 average (N,K,h,w)."""
    maps = average(heatmaps, mirrored, flip_pairs=flip_pairs, alignment=alignment)
    count, keypoints, height, width = maps.shape
    points = np.empty((count, keypoints, 2))
    heat = np.empty((count, keypoints), np.float32)
    for n in range(count):
        for k in range(keypoints):
            x, y, heat[n, k] = refined_peak(maps[n, k], refine, blur_sigma)
            if crop_size is not None:
                x = to_crop(x, width, crop_size[0], alignment)
                y = to_crop(y, height, crop_size[1], alignment)
            if transforms is not None:
                x, y = np.asarray(transforms[n], np.float64) @ (x, y, 1.0)
            points[n, k] = x, y
    return points, heat, maps


def transform(box, size, padding=1.25):
    """(2,3) float64: crop pixel to image pixel for an xyxy box and a crop of (width, height)."""
    left, top, right, bottom = (float(edge) for edge in box)
    width, height = right - left, bottom - top
    aspect = size[0] / size[1]
    if width < height * aspect:
        width = height * aspect
    else:
        height = width / aspect
    matrix = np.zeros((2, 3))
    for axis, (low, high, window) in enumerate(((left, right, width), (top, bottom, height))):
        center, scale = (low + high) / 2, window * padding / size[axis]
        matrix[axis, axis] = scale
        matrix[axis, 2] = center - 0.5 + (0.5 - size[axis] / 2) * scale
    return matrix


def bilinear(frame, x, y):
    """(3,) float64: the frame at image pixel (x, y); neighbors outside the frame are black."""
    height, width = frame.shape[:2]
    left, top = math.floor(x), math.floor(y)
    value = np.zeros(3)
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < height and 0 <= column < width:
                value += weight_y * weight_x * frame[row, column].astype(np.float64)
    return value


def crop(frames, boxes, *, size, frame_index=None, padding=1.25, mean, std, color="bgr", mirrored=False):
    """pixels (N or 2N,3,H,W) and transforms (N,2,3), float64."""
    width, height = size
    if frame_index is None:
        frame_index = [0] * len(boxes)
    pixels = np.empty((len(boxes), 3, height, width))
    transforms = np.empty((len(boxes), 2, 3))
    for n, (box, which) in enumerate(zip(boxes, frame_index, strict=True)):
        matrix = transforms[n] = transform(box, size, padding)
        for row in range(height):
            for column in range(width):
                x, y = matrix @ (column, row, 1.0)
                value = bilinear(frames[which], x, y)
                red_green_blue = value[::-1] if color == "bgr" else value
                pixels[n, :, row, column] = (red_green_blue - mean) / std
    if mirrored:
        pixels = np.concatenate([pixels, pixels[..., ::-1]])
    return pixels, transforms


def score(similarity, visibility, box_scores=None):
    """(N,) float64: equation 10, the mean similarity weighted by visibility, times the box scores."""
    similarity, visibility = similarity.astype(np.float64), visibility.astype(np.float64)
    result = np.zeros(len(similarity))
    for n in range(len(similarity)):
        total = visibility[n].sum()
        if not total < 1e-6:
            result[n] = (similarity[n] * visibility[n]).sum() / total
        if box_scores is not None:
            result[n] *= float(box_scores[n])
    return result


def conventional_score(heat, box_scores=None):
    """(N,) float64: equation 3, the mean heat, times the box scores."""
    result = heat.astype(np.float64).mean(axis=1)
    return result if box_scores is None else result * np.asarray(box_scores, np.float64)


def keypoint_similarity(a, b, area, sigma):
    """Equation 2 for two points; 0 if one is not finite."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0
    distance = math.hypot(float(a[0]) - float(b[0]), float(a[1]) - float(b[1]))
    return math.exp(-(distance**2) / (2 * (float(area) + np.spacing(1.0)) * (2 * float(sigma)) ** 2))


def pose_similarity(a, b, area, sigmas, visible=None):
    """Equation 1 for two poses (K,2)."""
    counted = [k for k in range(len(sigmas)) if visible is None or visible[k]]
    if not counted:
        return 0.0
    return sum(keypoint_similarity(a[k], b[k], area, sigmas[k]) for k in counted) / len(counted)


def oks(a, b, *, areas, sigmas, visible=None):
    """(N,M) float64: OKS of every pose in a with every pose in b."""
    result = np.empty((len(a), len(b)))
    for n in range(len(a)):
        for m in range(len(b)):
            seen = None if visible is None else visible[m]
            result[n, m] = pose_similarity(a[n], b[m], areas[m], sigmas, seen)
    return result


def box_iou(a, b):
    """Intersection over union of two xyxy boxes; 0 if one has no area."""
    width = min(float(a[2]), float(b[2])) - max(float(a[0]), float(b[0]))
    height = min(float(a[3]), float(b[3])) - max(float(a[1]), float(b[1]))
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(float(box[2]) - float(box[0])) * (float(box[3]) - float(box[1])) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def box_nms(boxes, scores, *, threshold, frame_index=None):
    """Kept indices, best first."""
    return greedy(scores, lambda i, j: box_iou(boxes[i], boxes[j]), threshold, frame_index)


def oks_nms(points, scores, *, areas, sigmas, threshold=0.9, frame_index=None):
    """Kept indices, best first."""
    return greedy(scores, lambda i, j: pair_similarity(points, areas, sigmas, i, j), threshold, frame_index)


def greedy(scores, similarity, threshold, frame_index=None):
    """Kept indices, best first; an index is dropped if its similarity to a better kept one exceeds the threshold."""
    order = sorted(range(len(scores)), key=lambda index: (-float(scores[index]), index))
    kept = []
    for index in order:
        rivals = [k for k in kept if frame_index is None or frame_index[k] == frame_index[index]]
        if not any(similarity(index, k) > threshold for k in rivals):
            kept.append(index)
    return kept


def pair_similarity(points, areas, sigmas, first, second):
    """OKS of two detected poses, with the mean of their areas."""
    return pose_similarity(
        points[first], points[second], (float(areas[first]) + float(areas[second])) / 2, sigmas
    )


def mirror_pairs(flip_pairs, keypoints):
    """The counterpart of each keypoint (itself without one), and the left keypoints."""
    counterpart = list(range(keypoints))
    for left, right in flip_pairs:
        counterpart[left], counterpart[right] = right, left
    return counterpart, {left for left, _ in flip_pairs}


def pose_features(points, heat, *, boxes, frame_sizes, flip_pairs):
    """For each person and keypoint a dictionary of its features, by their names: [[{...}]]."""
    keypoints = points.shape[1]
    counterpart, lefts = mirror_pairs(flip_pairs, keypoints)
    people = []
    for n in range(len(points)):
        place, values = points[n].astype(np.float64), heat[n].astype(np.float64)
        x1, y1, x2, y2 = (float(edge) for edge in boxes[n])
        frame_width, frame_height = (float(side) for side in frame_sizes[n])
        width, height = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
        scale = math.sqrt(width * height)
        quartiles = np.percentile(values, [0, 25, 50, 75, 100])
        person = []
        for k in range(keypoints):
            mirror = k in lefts
            sign = -1 if mirror else 1
            x, y = place[k] + 0.5
            sides = [x, frame_width - x]
            features = {
                "joint": counterpart[k] if mirror else k,
                "heat": values[k],
                "box_x": (x1 + width - x) / width if mirror else (x - x1) / width,
                "box_y": (y - y1) / height,
                "box_border": min(x - x1, x1 + width - x, y - y1, y1 + height - y) / scale,
                "frame_left": sides[mirror] / scale,
                "frame_top": y / scale,
                "frame_right": sides[not mirror] / scale,
                "frame_bottom": (frame_height - y) / scale,
                "scale": scale,
                "aspect": width / height,
                "heat_min": quartiles[0],
                "heat_lower_quartile": quartiles[1],
                "heat_median": quartiles[2],
                "heat_upper_quartile": quartiles[3],
                "heat_max": quartiles[4],
                "heat_mean": values.mean(),
            }
            for i in range(keypoints):
                other = counterpart[i] if mirror else i
                features[f"heat_of_{i}"] = values[other]
                features[f"dx_to_{i}"] = sign * (place[other, 0] - place[k, 0]) / scale
                features[f"dy_to_{i}"] = (place[other, 1] - place[k, 1]) / scale
            person.append(features)
        people.append(person)
    return people


def neighbors(heatmap, y, x):
    """(value, flat index) of the up to eight neighbors of a cell."""
    height, width = heatmap.shape
    return [
        (heatmap[j, i], j * width + i)
        for j in range(max(y - 1, 0), min(y + 2, height))
        for i in range(max(x - 1, 0), min(x + 2, width))
        if (j, i) != (y, x)
    ]


def local_peaks(heatmap):
    """Flat indices of the local peaks above 0, the highest first."""
    width = heatmap.shape[1]
    found = []
    for index, value in enumerate(heatmap.ravel()):
        around = neighbors(heatmap, *divmod(index, width))
        if value > 0 and all(value > v or (value == v and index < other) for v, other in around):
            found.append(index)
    return sorted(found, key=lambda index: (-heatmap.ravel()[index], index))


def one_map_features(heatmap, mirror):
    """Features of one averaged (h,w) map that need no other map."""
    names = (
        "second_heat", "second_ratio", "second_x", "second_y", "second_distance", "mass", "mass_near", "center_x",
        "center_y", "spread", "local_spread", "entropy", "peaks", "ring", "half_area",
    )  # fmt: skip
    features = dict.fromkeys(names, 0.0)
    peak = largest(heatmap.ravel().tolist())
    y, x = divmod(peak, heatmap.shape[1])
    heat = float(heatmap[y, x])
    if heat < 1e-30:
        return features
    sign = -1 if mirror else 1
    peaks = local_peaks(heatmap)
    assert peaks[0] == peak
    if len(peaks) > 1:
        second_y, second_x = divmod(peaks[1], heatmap.shape[1])
        second = float(heatmap[second_y, second_x])
        features["second_heat"], features["second_ratio"] = second, second / heat
        features["second_x"], features["second_y"] = sign * (second_x - x), second_y - y
        features["second_distance"] = math.hypot(second_x - x, second_y - y)
    part = np.maximum(heatmap.astype(np.float64), 0) / heat
    far_y, far_x = np.mgrid[: heatmap.shape[0], : heatmap.shape[1]]
    far_y, far_x = far_y - y, far_x - x
    reach = np.maximum(abs(far_x), abs(far_y))
    squared = far_x**2 + far_y**2
    near, local, ring = part * (reach <= 2), part * (reach <= 4), reach == 3
    mass = part.sum()
    features["mass"], features["mass_near"] = mass, near.sum() / mass
    features["center_x"], features["center_y"] = (
        sign * (part * far_x).sum() / mass,
        (part * far_y).sum() / mass,
    )
    features["spread"] = math.sqrt((part * squared).sum() / mass)
    features["local_spread"] = math.sqrt((local * squared).sum() / local.sum())
    features["entropy"] = -math.log(((part / mass) ** 2).sum())
    features["peaks"] = sum(heatmap.ravel()[index] >= np.float32(0.25) * np.float32(heat) for index in peaks)
    features["ring"] = part[ring].mean() if ring.any() else 0.0
    features["half_area"] = (heatmap >= np.float32(0.5) * np.float32(heat)).sum()
    return features


def map_features(heatmaps, mirrored=None, *, points, boxes, frame_sizes, flip_pairs, alignment="half_pixel"):
    """For each person and keypoint a dictionary of its features, by their names: [[{...}]]."""
    maps = average(heatmaps, mirrored, flip_pairs=flip_pairs, alignment=alignment)
    count, keypoints, _, width = maps.shape
    heat = maps.reshape(count, keypoints, -1).max(axis=2)
    people = pose_features(points, heat, boxes=boxes, frame_sizes=frame_sizes, flip_pairs=flip_pairs)
    counterpart, lefts = mirror_pairs(flip_pairs, keypoints)
    back = None if mirrored is None else mirrored_back(mirrored, flip_pairs, alignment)
    for n in range(count):
        cells = [largest(maps[n, k].ravel().tolist()) for k in range(keypoints)]
        for k, features in enumerate(people[n]):
            features |= one_map_features(maps[n, k], k in lefts)
            pair, at_peak = counterpart[k], maps[n].reshape(keypoints, -1)[:, cells[k]]
            others = [at_peak[i] for i in range(keypoints) if i not in (k, pair)]
            features["pair_at_peak"] = at_peak[pair] if pair != k else 0.0
            features["at_pair_peak"] = maps[n, k].ravel()[cells[pair]] if pair != k else 0.0
            features["others_at_peak"] = max(others, default=0.0)
            if back is not None:
                own, other = heatmaps[n, k].astype(np.float32).ravel(), back[n, k].ravel()
                first, second = divmod(largest(own.tolist()), width), divmod(largest(other.tolist()), width)
                features["flip_distance"] = math.dist(first, second)
                features["flip_difference"] = abs(float(own[cells[k]]) - float(other[cells[k]]))
                features["flip_heat"] = other.max()
    return people


def opinion_features(features, points, second_points, second_heat, *, boxes, sigmas, flip_pairs):
    """(N,K,F+5) float64: the features, then five about the second estimator's keypoint."""
    rows = []
    lefts = mirror_pairs(flip_pairs, points.shape[1])[1]
    for n in range(len(points)):
        x1, y1, x2, y2 = map(float, boxes[n])
        scale = math.sqrt(0.53 * max(x2 - x1, 1) * max(y2 - y1, 1))
        heats = [float(heat) if math.isfinite(heat) else 0.0 for heat in second_heat[n]]
        for k in range(points.shape[1]):
            apart = []
            for axis in range(2):
                value = (float(second_points[n, k, axis]) - float(points[n, k, axis])) / (
                    2 * scale * sigmas[k]
                )
                apart.append(-99.0 if math.isnan(value) else min(max(value, -99.0), 99.0))
            own = [] if features is None else features[n, k].tolist()
            told = [-apart[0] if k in lefts else apart[0], apart[1], math.hypot(*apart)]
            rows.append([*own, *told, heats[k], heats[k] - sum(heats) / len(heats)])
    width = 5 if features is None else features.shape[2] + 5
    return np.array(rows, float).reshape(*points.shape[:2], width)


def feature_array(people, names):
    """(N,K,F) float64 from dictionaries of features."""
    return np.array([[[features[name] for name in names] for features in person] for person in people], float)


def forest(features, model):
    """(N,K) float64: sigmoid of the sum of the leaves that each row reaches."""
    values = np.zeros(features.shape[:2])
    for n, k in np.ndindex(*values.shape):
        for root in model["roots"]:
            child = root
            while child >= 0:
                value = features[n, k, model["feature"][child]]
                left = model["nan_left"][child] if np.isnan(value) else value <= model["threshold"][child]
                child = model["left" if left else "right"][child]
            values[n, k] += float(model["leaves"][-1 - child])
    return 1 / (1 + np.exp(-values))


def decode_simcc(x, y, *, mirrored=None, flip_pairs=(), split=2.0, transforms=None):
    """points (N,K,2) float64 and heat (N,K) float32 of SimCC vectors."""
    vectors = [x.astype(np.float32), y.astype(np.float32)]
    if mirrored is not None:
        counterpart = mirror_pairs(flip_pairs, x.shape[1])[0]
        back = [
            mirrored[0][:, counterpart, ::-1].astype(np.float32),
            mirrored[1][:, counterpart].astype(np.float32),
        ]
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = [np.float32(0.5) * (own + other) for own, other in zip(vectors, back, strict=True)]
    points, heat = np.full((*x.shape[:2], 2), np.nan), np.full(x.shape[:2], np.nan, np.float32)
    for n, k in np.ndindex(*x.shape[:2]):
        bins = [largest(vector[n, k].tolist()) for vector in vectors]
        if None in bins:
            continue
        heat[n, k] = min(vector[n, k, index] for vector, index in zip(vectors, bins, strict=True))
        place = np.array(bins) / split
        points[n, k] = place if transforms is None else np.asarray(transforms[n], float) @ (*place, 1.0)
    return points, heat
