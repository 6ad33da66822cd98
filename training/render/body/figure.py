"""One person before the camera: posed, turned, projected; then drawn into buffers of any scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oaks.training.render.body.anatomy import JOINT
from oaks.training.render.body.mesh import Body
from oaks.training.render.scene import raster
from oaks.training.render.scene.labels import PERSON_CODES, Subject

_BODY_JOINTS = np.array([
    JOINT[f"{side}_{name}"]
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
])  # fmt: skip


@dataclass(frozen=True)
class CameraView:
    """How a person is seen: own yaw, the camera's pitch and roll (radians), its distance (metres)."""

    yaw: float
    pitch: float
    roll: float
    distance: float

    def rotation(self) -> np.ndarray:
        """(3, 3) from the body frame to the camera's: x right, y up, z towards the viewer."""
        (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (self.yaw, self.pitch, self.roll))
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return roll @ pitch @ yaw


class Figure:
    """A posed person as the camera sees it, in metres at the pelvis's distance, y down, pelvis at (0, 0).

    Attributes:
        points: (V, 2); distance: (V,) metres from the camera; normals: (3, V) in the camera's frame.
        bounds: (2, 2): the least and the greatest x and y of the points.
        keypoints: (17, 2) in COCO's order; keypoint_distance: (17,).
        facing: (5,): cosine between the face keypoints' surface and the way to the camera.
    """

    def __init__(self, body: Body, pose: np.ndarray, view: CameraView) -> None:
        mesh = body.mesh(pose)
        rotation = view.rotation()
        self.body = body
        self.view = view
        turned = rotation.astype(np.float32)
        x, y, z = turned @ mesh.vertices
        self.distance = np.maximum(np.float32(view.distance) - z, np.float32(0.15))
        grown = np.float32(view.distance) / self.distance
        self.points = np.stack([x * grown, -y * grown], 1)
        self.normals = turned @ mesh.normals
        self.bounds = np.array(
            [
                [self.points[:, 0].min(), self.points[:, 1].min()],
                [self.points[:, 0].max(), self.points[:, 1].max()],
            ]
        )
        spots = np.concatenate([mesh.face, mesh.joints[_BODY_JOINTS]]) @ rotation.T
        self.keypoints, self.keypoint_distance = _project(spots, view.distance)
        towards = np.array([0.0, 0.0, view.distance]) - spots[:5]
        towards /= np.sqrt((towards**2).sum(1, keepdims=True))
        self.facing = ((mesh.face_normals @ rotation.T) * towards).sum(1)

    def subject(self, number: int, scale: float, shift: np.ndarray) -> Subject:
        """What labels need to know, in a buffer with `scale` pixels per metre and the pelvis at `shift`."""
        stature = self.body.proportions.stature
        return Subject(
            number, self.keypoints * scale + shift, self.keypoint_distance, self.facing, stature, scale
        )

    def surface(
        self, size: tuple[int, int], scale: float, shift: np.ndarray
    ) -> tuple[raster.Surface, np.ndarray]:
        """The nearest triangles in a buffer of `size`, and the (V, 2) float32 points there."""
        points = (self.points * scale + shift).astype(np.float32)
        return raster.rasterize(points, 1 / self.distance, self.body.triangles, size), points

    def stamp(self, codes: np.ndarray, distances: np.ndarray, surface: raster.Surface, number: int) -> None:
        """Writes a surface into (H, W) buffers of codes (uint16) and distances (float32)."""
        parts = np.take(self.body.parts, surface.triangles)
        codes.ravel()[surface.pixels] = (parts + number * PERSON_CODES + 1).astype(np.uint16)
        distances.ravel()[surface.pixels] = 1 / surface.nearness

    def sketch(self, size: tuple[int, int], scale: float, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Buffers of codes and distances with the person alone, as number 0, from the coarse surface."""
        points = (self.points * scale + shift).astype(np.float32)
        surface = raster.rasterize(points, 1 / self.distance, self.body.coarse_triangles, size)
        codes, distances = np.zeros(size[::-1], np.uint16), np.zeros(size[::-1], np.float32)
        parts = np.take(self.body.coarse_parts, surface.triangles)
        codes.ravel()[surface.pixels] = (parts + 1).astype(np.uint16)
        distances.ravel()[surface.pixels] = 1 / surface.nearness
        return codes, distances


def _project(points: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    depth = np.maximum(distance - points[:, 2], 0.15)
    return points[:, :2] * [1.0, -1.0] * (distance / depth)[:, None], depth
