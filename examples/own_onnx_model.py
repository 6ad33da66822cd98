"""Turn your own heatmap network (an ONNX file) into a bundle that every command and backend takes.

    pip install ".[fit]"
    python examples/own_onnx_model.py hrnet_w32.onnx --preset hrnet --license MIT --out hrnet

The bundle has the conventional score. To give it an OAKS score, fit a scorer to some hundred annotated people:
`oaks fit hrnet --annotations people.json --images pictures --out hrnet-oaks`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import oaks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Turn an ONNX file of a heatmap network into a bundle.")
    parser.add_argument("network", help="ONNX file")
    parser.add_argument("--preset", required=True, choices=sorted(oaks.fit.PRESETS))
    parser.add_argument("--license", required=True, help="license of the weights")
    parser.add_argument("--picture", help="picture of one person to try it on")
    parser.add_argument("--out", required=True, help="folder of the bundle")
    given = parser.parse_args(arguments)

    bundle = oaks.fit.import_network(given.network, given.out, preset=given.preset, license=given.license)
    print(
        f"{bundle.path}: crops of {bundle.pose.size}, decoder {bundle.pose.refine}, {bundle.skeleton.count} keypoints"
    )
    if given.picture:
        poses = oaks.Engine(bundle).infer(given.picture, boxes="whole")
        print(f"conventional score {poses.scores[0]:.2f}")


if __name__ == "__main__":
    main()
