"""RenderedPeople: reproducible, with labels that agree with what is drawn."""

from __future__ import annotations

import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest

from oaks.skeleton import COCO17
from oaks.training.render import PAPER_CLASSES, RenderedPeople
from oaks.training.render.body.anatomy import draw_proportions
from oaks.training.render.body.figure import CameraView, Figure
from oaks.training.render.body.mesh import Body
from oaks.training.render.body.outfit import Outfit
from oaks.training.render.body.parts import Part
from oaks.training.render.body.poses import hand_written
from oaks.training.render.scene.drawing import OVERSAMPLING, Artist, Scene, enlarged
from oaks.training.render.scene.labels import CLASS_EDGES, OCCLUDER, PERSON_CODES
from oaks.training.render.scene.placement import Placed

INDEX = {name: index for index, name in enumerate(COCO17.keypoints)}


@pytest.fixture(scope="module")
def samples():
    people = RenderedPeople(11)
    return [people.sample(index) for index in range(140)]


def table(entry):
    return np.array(entry["keypoints"], float).reshape(17, 3)


def one(pose="stand", yaw=0.0, pitch=0.05, size=(320, 320), height=240, number=0, outfit=None):
    """Return a scene of one whole person of a given yaw in the middle of the picture."""
    rng = np.random.default_rng(number)
    body = Body(draw_proportions(rng), outfit or Outfit(), number)
    figure = Figure(body, hand_written(rng, pose), CameraView(yaw, pitch, 0.02, 5.0))
    low, high = figure.bounds
    scale = height / (high - low).max()
    shift = np.array(size) / 2 - scale * (low + high) / 2
    return Scene([Placed(figure, scale, shift)], size[1] * 0.4, number)


def test_a_picture_follows_from_seed_and_index():
    first, second = RenderedPeople(3), RenderedPeople(3)
    forward = {index: first.sample(index) for index in (0, 1, 2, 7)}
    for index in (7, 2, 0, 1):
        image, annotations = second.sample(index)
        np.testing.assert_array_equal(image, forward[index][0])
        assert annotations == forward[index][1]
    copy = pickle.loads(pickle.dumps(second))
    np.testing.assert_array_equal(copy.sample(7)[0], forward[7][0])
    other, _ = RenderedPeople(4).sample(0)
    assert (other != forward[0][0]).mean() > 0.5


def test_torch_is_not_imported():
    code = (
        "import sys, oaks.training.render as r; r.RenderedPeople(0, size=(64, 64)).sample(0);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_annotations_are_consistent(samples):
    people = 0
    for index, (image, entries) in enumerate(samples):
        assert image.shape == (320, 320, 3)
        assert image.dtype == np.uint8
        for number, entry in enumerate(entries, 1):
            people += 1
            keypoints = table(entry)
            assert (entry["id"], entry["image_id"], entry["category_id"]) == (number, index, 1)
            assert entry["num_keypoints"] == (keypoints[:, 2] > 0).sum()
            assert set(keypoints[:, 2]) <= {0, 1, 2}
            assert (keypoints[keypoints[:, 2] == 0] == 0).all()
            labeled = keypoints[keypoints[:, 2] > 0, :2]
            assert (labeled >= -0.5).all()
            assert (labeled <= 319.5).all()
            x, y, w, h = entry["bbox"]
            assert x >= 0
            assert y >= 0
            assert x + w <= 320
            assert y + h <= 320
            assert 0 < entry["area"] <= w * h + 1e-6
            seen = keypoints[keypoints[:, 2] == 2]
            inside = (seen[:, 0] > x - 1.5) & (seen[:, 0] < x + w + 0.5)
            inside &= (seen[:, 1] > y - 1.5) & (seen[:, 1] < y + h + 0.5)
            assert inside.all()
    assert 1.7 * len(samples) < people < 2.4 * len(samples)


def test_occlusion_classes_have_the_requested_shares(samples):
    def shares(pictures):
        labeled = [entry["num_keypoints"] for _, entries in pictures for entry in entries]
        return np.bincount(np.digitize(labeled, CLASS_EDGES), minlength=4) / len(labeled)

    np.testing.assert_allclose(shares(samples), PAPER_CLASSES, atol=0.08)
    expected = (0.4, 0.4, 0.1, 0.1)
    people = RenderedPeople(12, classes=expected)
    np.testing.assert_allclose(shares([people.sample(index) for index in range(90)]), expected, atol=0.11)
    bare = RenderedPeople(13, occluders=False, people=(1,))
    found = shares([bare.sample(index) for index in range(120)])
    np.testing.assert_allclose(found, PAPER_CLASSES, atol=0.12)


def test_labels_agree_with_the_visible_parts():
    """By the drawing's codes: seen keypoints lie on their person, unlabeled ones are not fully visible."""
    people = RenderedPeople(5)
    counted = {0: 0, 1: 0, 2: 0}
    limbs = {"elbow": ("UPPER_ARM", "FOREARM"), "wrist": ("FOREARM", "HAND"), "knee": ("THIGH", "SHIN"),
             "ankle": ("SHIN", "FOOT")}  # fmt: skip
    for index in range(40):
        drawing = people._artist.draw(people.scene(index))
        height, width = drawing.codes.shape
        for number, entry in drawing.annotations():
            keypoints = table(entry)
            mask, (left, top) = drawing.mask(number)
            own = np.zeros((height, width), bool)
            own[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
            assert (
                own.sum()
                == ((drawing.codes != OCCLUDER) & ((drawing.codes - 1) // PERSON_CODES == number)).sum()
            )
            assert entry["area"] == pytest.approx(own.sum() / OVERSAMPLING**2)
            rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
            edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / OVERSAMPLING
            np.testing.assert_allclose(entry["bbox"], [*edges[:2], *(edges[2:] - edges[:2])])
            subject = drawing.scene.people[number].figure.subject(
                number, *enlarged(drawing.scene.people[number])
            )
            near = cv2.dilate(own.astype(np.uint8), np.ones((9, 9), np.uint8))
            for name, (upper, lower) in (
                (f"{side}_{joint}", parts) for side in ("left", "right") for joint, parts in limbs.items()
            ):
                flag = int(keypoints[INDEX[name], 2])
                counted[flag] += 1
                x, y = np.rint(subject.points[INDEX[name]]).astype(int)
                within = 0 <= x < width and 0 <= y < height
                side = name.split("_")[0].upper()
                fitting = [number * PERSON_CODES + 1 + Part[f"{side}_{part}"] for part in (upper, lower)]
                if flag == 2:
                    assert within
                    assert near[y, x]
                if flag and within:
                    assert np.abs(np.array([x, y]) / OVERSAMPLING - keypoints[INDEX[name], :2]).max() < 1
                if flag == 0 and within and min(x, y, width - 1 - x, height - 1 - y) > 12:
                    patch = drawing.codes[y - 1 : y + 2, x - 1 : x + 2]
                    behind = subject.distance[INDEX[name]] - drawing.distances[y, x]
                    assert not (np.isin(patch, fitting).all() and abs(behind) < 0.05)
    assert all(count > 40 for count in counted.values())


def test_a_keypoint_drawn_where_it_is_annotated_lands_there():
    """A dot painted on the drawing at a joint is found in the picture at the annotated place."""
    artist = Artist(0, (320, 320))
    scene = one(yaw=0.3)
    drawing = artist.draw(scene)
    ((_, entry),) = drawing.annotations()
    keypoints = table(entry)
    scale, shift = enlarged(scene.people[0])
    points = scene.people[0].figure.keypoints * scale + shift
    for index in np.flatnonzero(keypoints[:, 2]):
        canvas = np.zeros_like(drawing.canvas)
        cv2.circle(
            canvas, tuple(int(v) for v in np.rint(points[index] * 8)), 24, (255,) * 3, -1, cv2.LINE_AA, 3
        )
        spot = type(drawing)(scene, canvas, drawing.codes, drawing.distances).picture()[..., 0].astype(float)
        y, x = np.mgrid[:320, :320]
        center = np.array([(x * spot).sum(), (y * spot).sum()]) / spot.sum()
        assert np.abs(center - keypoints[index, :2]).max() < 0.15


def test_projection_is_that_of_a_pinhole_camera():
    rng = np.random.default_rng(2)
    body = Body(draw_proportions(rng), Outfit())
    view = CameraView(yaw=0.7, pitch=0.2, roll=-0.1, distance=4.0)
    pose = hand_written(np.random.default_rng(8), "stand")
    mesh, figure = body.mesh(pose), Figure(body, pose, view)
    rotation = view.rotation()
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    # Yaw takes the front (+z) towards the right of the image, pitch tips the head towards the camera.
    assert (CameraView(0.5, 0, 0, 4).rotation() @ [0, 0, 1])[0] > 0
    assert (CameraView(0, 0.5, 0, 4).rotation() @ [0, 1, 0])[2] > 0
    for vertex in range(0, mesh.vertices.shape[1], 211):
        x, y, z = rotation @ mesh.vertices[:, vertex].astype(float)
        expected = np.array([x, -y]) * 4.0 / (4.0 - z)
        np.testing.assert_allclose(figure.points[vertex], expected, atol=1e-4)
        assert figure.distance[vertex] == pytest.approx(4.0 - z, abs=1e-4)


@pytest.mark.parametrize("number", range(4))
def test_left_keypoints_of_a_person_facing_the_camera_are_on_the_right(number):
    artist = Artist(0, (320, 320))
    outfit = Outfit(hair="short")
    ((_, front),) = artist.draw(one(yaw=0.0, number=number, outfit=outfit)).annotations()
    ((_, back),) = artist.draw(one(yaw=np.pi, number=number, outfit=outfit)).annotations()
    front, back = table(front), table(back)
    for name in ("shoulder", "hip"):
        left, right = INDEX[f"left_{name}"], INDEX[f"right_{name}"]
        assert front[left, 0] > front[right, 0]
        assert back[left, 0] < back[right, 0]
    assert (back[:3, 2] == 0).all()


def test_visible_face_keypoints_follow_from_the_yaw():
    """From the front all of the face, from the sides the near half, from behind no nose and no eyes."""
    artist = Artist(0, (320, 320))
    body = Body(draw_proportions(np.random.default_rng(1)), Outfit(hair="short"))
    pose = hand_written(np.random.default_rng(1), "stand")
    pose[11], pose[12] = [0, 1, 0], [0, 0, 1]
    seen, pictures = {}, {}
    for yaw in (0, 90, 180, 270):
        figure = Figure(body, pose, CameraView(np.radians(yaw), 0.0, 0.0, 5.0))
        shift = np.array([160.0, 160.0])
        drawing = artist.draw(Scene([Placed(figure, 120.0, shift)], 100.0, 0))
        ((_, entry),) = drawing.annotations()
        seen[yaw] = table(entry)[:5, 2].astype(int).tolist()
        points = figure.keypoints[:5] * 120 + shift
        x, y = points.mean(0).round().astype(int)
        pictures[yaw] = drawing.picture()[y - 14 : y + 14, x - 14 : x + 14].astype(float)
    assert seen[0] == [2, 2, 2, 2, 2]
    # Turned to the right of the image the person's left is hidden, and the other way round.
    assert seen[90] == [2, 0, 2, 0, 2]
    assert seen[270] == [2, 2, 0, 2, 0]
    assert seen[180][:3] == [0, 0, 0]
    for a, b in ((0, 180), (90, 270), (0, 90)):
        assert np.abs(pictures[a] - pictures[b]).mean() > 8


def test_switches_change_pictures_not_labels():
    def pair(**settings):
        people = RenderedPeople(21, **settings)
        return [people.sample(index) for index in range(4)]

    base = pair()
    for switch in ("texture", "faces", "photograph"):
        changed = pair(**{switch: False})
        assert [entries for _, entries in changed] == [entries for _, entries in base]
        assert any((a[0] != b[0]).any() for a, b in zip(base, changed, strict=True))
    bare = RenderedPeople(21, occluders=False)
    assert not any(person.occluders for index in range(10) for person in bare.scene(index).people)
    full = RenderedPeople(21)
    assert sum(bool(person.occluders) for index in range(10) for person in full.scene(index).people) > 3


def test_other_sizes():
    for size in ((192, 256), (640, 360)):
        image, annotations = RenderedPeople(1, size=size).sample(2)
        assert image.shape == (size[1], size[0], 3)
        assert annotations


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"seed": -1}, "seed"), ({"seed": 1.5}, "seed"), ({"seed": 0, "size": (321, 320)}, "size"),
        ({"seed": 0, "size": (16, 320)}, "size"), ({"seed": 0, "classes": (1, 1)}, "classes"),
        ({"seed": 0, "classes": (0, 0, 0, 0)}, "classes"), ({"seed": 0, "people": (-1, 2)}, "people"),
        ({"seed": 0, "people": ()}, "people"), ({"seed": 0, "poses": "no/such/file.npz"}, "poses"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(settings, named):
    with pytest.raises(ValueError, match=f"^{named}(:| must be) "):
        RenderedPeople(**settings)


def test_negative_indices_are_refused():
    with pytest.raises(ValueError, match="index"):
        RenderedPeople(0).sample(-1)
