"""One person in front of the camera: posed, turned and projected, then drawn into buffers of any scale."""

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
    """View of a person: its own yaw, the camera's pitch and roll (radians), the distance (meters)."""

    yaw: float
    pitch: float
    roll: float
    distance: float

    def rotation(self) -> np.ndarray:
        """Return the rotation (3, 3) from the body's frame to the camera's: x right, y up, z towards the viewer."""
        (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (self.yaw, self.pitch, self.roll))
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return roll @ pitch @ yaw


class Figure:
    """A posed person as the camera sees it, in meters at the pelvis's distance, y down, pelvis at (0, 0).

    Attributes:
        points: (V, 2); distance: (V,) meters from the camera; normals: (3, V) in the camera's frame.
        bounds: (2, 2): the smallest and the largest x and y of the points.
        keypoints: (17, 2) in COCO's order; keypoint_distance: (17,).
        facing: (5,): cosine between the face keypoints' surface and the direction to the camera.
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
        self.bounds = np.stack([self.points.min(0), self.points.max(0)])
        spots = np.concatenate([mesh.face, mesh.joints[_BODY_JOINTS]]) @ rotation.T
        self.keypoints, self.keypoint_distance = _project(spots, view.distance)
        towards = np.array([0.0, 0.0, view.distance]) - spots[:5]
        towards /= np.sqrt((towards**2).sum(1, keepdims=True))
        self.facing = ((mesh.face_normals @ rotation.T) * towards).sum(1)

    def subject(self, number: int, scale: float, shift: np.ndarray) -> Subject:
        """Return what labels depend on, in a buffer with `scale` pixels per meter and the pelvis at `shift`."""
        stature = self.body.proportions.stature
        return Subject(
            number, self.keypoints * scale + shift, self.keypoint_distance, self.facing, stature, scale
        )

    def surface(
        self, size: tuple[int, int], scale: float, shift: np.ndarray
    ) -> tuple[raster.Surface, np.ndarray]:
        """Return the nearest triangles in a buffer of `size`, and the points (V, 2) float32 there."""
        points = (self.points * scale + shift).astype(np.float32)
        return raster.rasterize(points, 1 / self.distance, self.body.triangles, size), points

    def stamp(self, codes: np.ndarray, distances: np.ndarray, surface: raster.Surface, number: int) -> None:
        """Write a surface into buffers (H, W) of codes (uint16) and distances (float32)."""
        _stamp(codes, distances, surface, self.body.parts, number)

    def sketch(self, size: tuple[int, int], scale: float, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return buffers of codes and distances with this person alone, as number 0, from the coarse surface."""
        points = (self.points * scale + shift).astype(np.float32)
        surface = raster.rasterize(points, 1 / self.distance, self.body.coarse_triangles, size)
        codes, distances = np.zeros(size[::-1], np.uint16), np.zeros(size[::-1], np.float32)
        _stamp(codes, distances, surface, self.body.coarse_parts, 0)
        return codes, distances


def _stamp(
    codes: np.ndarray, distances: np.ndarray, surface: raster.Surface, parts: np.ndarray, number: int
) -> None:
    shown = np.take(parts, surface.triangles)
    codes.ravel()[surface.pixels] = (shown + number * PERSON_CODES + 1).astype(np.uint16)
    distances.ravel()[surface.pixels] = 1 / surface.nearness


def _project(points: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    depth = np.maximum(distance - points[:, 2], 0.15)
    return points[:, :2] * [1.0, -1.0] * (distance / depth)[:, None], depth
