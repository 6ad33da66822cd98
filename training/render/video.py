"""RenderedVideos: clips of walking people who look the same in every frame, with labels and track ids.

Each person has a lane at a distance of its own, so that people pass in front of and behind one another, but never through
one another. Objects stand between the lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oaks.errors import ArgumentError
from oaks.training.render.arguments import check_picture_size, check_shares, check_whole_number
from oaks.training.render.body.cast import BODIES, Cast
from oaks.training.render.body.figure import CameraView, Figure
from oaks.training.render.body.mesh import Body
from oaks.training.render.body.motion import Motion, Stop, move
from oaks.training.render.look.photo import Camera
from oaks.training.render.scene.drawing import Artist, Drawing, Scene
from oaks.training.render.scene.occluders import Occluder, cover
from oaks.training.render.scene.placement import Placed

_CLIP = 1_000_009
_ADULT = 1.75
_KINDS = ("post", "box", "bars", "foliage", "chair")
_BEYOND = 0.7  # meters past the frame's edge at which a person is completely outside
_ROOM = 0.05  # range of a moving camera, as a share of the picture's width and height


@dataclass(frozen=True)
class Lens:
    """A level camera over the ground.

    Attributes:
        focal: pixels per meter at a distance of one meter.
        center, horizon: column and row of the optical axis.
        height: meters above the ground.
    """

    focal: float
    center: float
    horizon: float
    height: float

    def project(self, place: np.ndarray, height: float) -> tuple[np.ndarray, float]:
        """Return where a point above the ground at (x, z) is seen, (2,) pixels, and the pixels per meter there."""
        scale = self.focal / place[1]
        return np.array([self.center, self.horizon]) + scale * np.array(
            [place[0], self.height - height]
        ), scale

    def view(self, place: np.ndarray, height: float, heading: float) -> CameraView:
        """Return the view of a person whose pelvis is at a place."""
        down = self.height - height
        return CameraView(
            heading + float(np.arctan2(place[0], place[1])),
            float(np.arctan2(down, place[1])),
            0.0,
            float(np.sqrt(place @ place + down * down)),
        )


@dataclass(frozen=True)
class Actor:
    """A person of a clip.

    Attributes:
        track_id: from 1.
        clothes: random seed of the clothes.
    """

    track_id: int
    body: Body
    motion: Motion
    clothes: int


@dataclass(frozen=True)
class Prop:
    """An object `depth` meters from the camera."""

    depth: float
    occluder: Occluder


class Clip:
    """A video, made by RenderedVideos.

    Attributes:
        number: of the clip.
        frames: number of frames.
        actors: the people, nearest lane first.
    """

    def __init__(
        self, number: int, lens: Lens, actors: list[Actor], props: list[Prop], look: int, corners: np.ndarray,
        videos: RenderedVideos,
    ) -> None:  # fmt: skip
        self.number = number
        self.frames = len(corners)
        self.actors = actors
        self._lens, self._look, self._corners, self._videos = lens, look, corners, videos
        self._props = sorted(props, key=lambda prop: -prop.depth)

    def frame(self, index: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Return a frame and its annotations; frames can be drawn in any order.

        Args:
            index: from 0 to frames - 1.

        Returns:
            (height, width, 3) uint8 BGR, and a COCO annotation with a `track_id` of each visible person, nearest
            first; keypoints in pixel indices, boxes with edges at pixel borders.

        Raises:
            IndexError: the frame does not exist.
        """
        drawing, ids = self.drawing(index)
        annotations = [{"track_id": ids[person], **entry} for person, entry in drawing.annotations()]
        return self._videos.photograph(self.number, index, drawing.picture()), annotations

    def drawing(self, index: int) -> tuple[Drawing, list[int]]:
        """Return a frame without the camera's flaws, and the track ids of all people of its scene, visible or not."""
        if not 0 <= index < self.frames:
            raise IndexError(f"index must be one of the frames 0 to {self.frames - 1}, got {index}")
        actors = sorted(self.actors, key=lambda actor: actor.motion.places[index, 1])
        scene = self._scene(index, actors)
        drawing = self._videos.artist.draw(scene).window(self._corners[index], self._videos.size)
        return drawing, [actor.track_id for actor in actors]

    def _scene(self, index: int, actors: list[Actor]) -> Scene:
        """Return the content of a frame, of actors nearest first; an object is drawn with the nearest person behind it."""
        people = []
        nearer = -np.inf
        for actor in actors:
            motion = actor.motion
            place, height, heading = motion.places[index], motion.heights[index], motion.headings[index]
            shift, scale = self._lens.project(place, height)
            figure = Figure(actor.body, motion.poses[index], self._lens.view(place, height, heading))
            objects = tuple(prop.occluder for prop in self._props if nearer < prop.depth <= place[1])
            people.append(Placed(figure, scale, shift, objects, actor.clothes))
            nearer = place[1]
        scenery = tuple(prop.occluder for prop in self._props if prop.depth > nearer)
        return Scene(people, self._lens.horizon, self._look, scenery)


class RenderedVideos:
    """A data set of rendered clips; `clip(number)` returns the same clip in any order and any process.

    People walk across the picture, turn, leave it and come back, or stop, look around and wave. They pass in front of and
    behind one another and behind objects; a person who reappears has the same track id as before.

    Args:
        seed: random seed; a clip follows from (seed, number).
        size: (width, height) of the frames in pixels, even numbers from 32 to 4096.
        frames: frames per clip.
        rate: frames per second, 5 to 1000.
        people: the probabilities of one, two, three ... people in a clip.
        texture, faces, photograph: as for RenderedPeople; a clip has the flaws of one camera.
        occluders: False puts no objects in front of people.
        shake: True moves the camera as a hand-held one; False keeps it still.

    Attributes:
        settings: the arguments, ready for JSON.

    Raises:
        ArgumentError: an argument is wrong.
    """

    def __init__(
        self,
        seed: int,
        size: tuple[int, int] = (640, 360),
        frames: int = 250,
        rate: float = 25.0,
        people: Sequence[float] = (0.05, 0.2, 0.35, 0.4),
        texture: bool = True,
        faces: bool = True,
        occluders: bool = True,
        photograph: bool = True,
        shake: bool = False,
    ) -> None:
        self.seed, self.size = check_whole_number("seed", seed), check_picture_size(size)
        self.frames, self.people = check_whole_number("frames", frames, 1), check_shares("people", people)
        if not 5 <= rate <= 1000:
            raise ArgumentError(f"rate must be 5 to 1000 frames per second, got {rate!r}")
        self.rate, self.shake = float(rate), bool(shake)
        self.settings: dict[str, Any] = {
            "seed": self.seed, "size": list(self.size), "frames": self.frames, "rate": self.rate,
            "people": self.people.tolist(), "texture": bool(texture), "faces": bool(faces),
            "occluders": bool(occluders), "photograph": bool(photograph), "shake": self.shake,
        }  # fmt: skip
        self._margin = tuple(2 * int(_ROOM * side / 2) if shake else 0 for side in self.size)
        stage = (self.size[0] + 2 * self._margin[0], self.size[1] + 2 * self._margin[1])
        self.artist = Artist(self.seed, stage, texture, faces)
        self._camera = Camera(self.seed)
        self._cast = Cast(self.seed)

    def clip(self, number: int) -> Clip:
        """Return a clip; `number` is from 0, without an upper limit."""
        rng = np.random.default_rng([self.seed, _CLIP, check_whole_number("number", number)])
        count = 1 + int(rng.choice(len(self.people), p=self.people))
        nearest, tall = float(rng.uniform(3.4, 4.6)), float(rng.uniform(0.5, 0.72)) * self.size[1]
        focal, height = tall * nearest / _ADULT, float(rng.uniform(1.3, 1.9))
        width, bottom = self.artist.size[0], self._margin[1] + self.size[1]
        # The feet of the nearest person are a little above the picture's lower edge.
        horizon = bottom - float(rng.uniform(0.02, 0.08)) * self.size[1] - focal * height / nearest
        lens = Lens(focal, (width - 1) / 2, horizon, height)
        spacing = float(rng.uniform(0.8, 1.15))
        lanes = nearest + spacing * np.arange(count)
        bodies = rng.choice(BODIES, count, replace=False)
        actors = []
        for lane, (depth, body) in enumerate(zip(lanes, bodies, strict=True)):
            actors.append(self._actor(rng, lane + 1, self._cast.body(int(body)), float(depth), lens))
        props = self._props(rng, lanes, spacing, lens) if self.settings["occluders"] else []
        look = int(rng.integers(1 << 31))
        return Clip(number, lens, actors, props, look, self._corners(rng), self)

    def photograph(self, number: int, index: int, picture: np.ndarray) -> np.ndarray:
        """Add the flaws of the clip's camera to a frame (H, W, 3) uint8."""
        if not self.settings["photograph"]:
            return picture
        camera = np.random.default_rng([self.seed, _CLIP, number, 1])
        return self._camera.photograph(
            camera, picture, np.random.default_rng([self.seed, _CLIP, number, 2, index])
        )

    def _actor(self, rng: np.random.Generator, track_id: int, body: Body, depth: float, lens: Lens) -> Actor:
        """Draw a person in the lane at `depth`, who crosses the picture to and fro, or strolls in it."""
        half = self.size[0] / 2 * depth / lens.focal
        seconds = self.frames / self.rate
        near = float(rng.uniform(-0.85, 0.85)) * half
        stops: list[Any] = []
        side = 1.0 if rng.random() < 0.5 else -1.0
        crossing = rng.random() < 0.6
        while len(stops) < 2 + seconds / 2:
            place = depth + float(rng.uniform(-0.12, 0.12))
            if crossing:
                stops.append(Stop((side * (half + _BEYOND + 0.6), place), float(rng.uniform(0.0, 1.2))))
                side = -side
            else:
                stays, waving = rng.random() < 0.5, rng.random() < 0.5
                staying = float(rng.uniform(1.0, 3.5)) if stays else 0.0
                stops.append(Stop((float(rng.uniform(-0.8, 0.8)) * half, place), staying, waving))
        motion = move(rng, body.proportions, (near, depth), stops, self.frames, self.rate)
        return Actor(track_id, body, motion, int(rng.integers(1 << 31)))

    def _props(self, rng: np.random.Generator, lanes: np.ndarray, spacing: float, lens: Lens) -> list[Prop]:
        """Draw one to three objects halfway between lanes."""
        props = []
        for _ in range(int(rng.integers(1, 4))):
            depth = float(rng.choice(lanes)) - spacing / 2
            half = self.size[0] / 2 * depth / lens.focal
            kind = _KINDS[int(rng.integers(len(_KINDS)))]
            wide = float(rng.uniform(0.2, 0.5)) if kind == "post" else float(rng.uniform(0.5, 1.1))
            middle = np.array([float(rng.uniform(-0.7, 0.7)) * half, depth])
            foot, scale = lens.project(middle, 0.0)
            low = foot - scale * np.array([wide / 2, float(rng.uniform(0.8, 1.9))])
            high = foot + scale * np.array([wide / 2, 0.0])
            props.append(Prop(depth, cover(rng, low, high, self.artist.size, (kind,))))
        return props

    def _corners(self, rng: np.random.Generator) -> np.ndarray:
        """Return the picture's corner on the stage in each frame, (frames, 2) pixels."""
        time = np.arange(self.frames)[:, None] / self.rate
        margin = np.array(self._margin, float)
        pan, hand = rng.uniform(0.05, 0.12, 2), rng.uniform(0.5, 2.0, (3, 2))
        turns = rng.uniform(0, 2 * np.pi, (4, 2))
        sway = 0.7 * np.sin(2 * np.pi * pan * time + turns[3])
        sway = sway + 0.03 * sum(np.sin(2 * np.pi * hand[k] * time + turns[k]) for k in range(3))
        return margin * (1 + sway)
