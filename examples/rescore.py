"""Give another estimator's poses a calibrated score: fit it to annotated people, then rescore any of its results.

    pip install ".[fit]"
    python examples/rescore.py results.json people.json other_results.json --out rescored.json

`results.json` holds the estimator's poses of the annotated pictures, `other_results.json` its poses of any others, both as
COCO keypoint results. other_estimators.py, beside this file, writes such rows from what rtmlib, Ultralytics and MediaPipe
return.
`oaks fit` and `oaks rescore` do the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import oaks
from oaks.coco_results import read_results
from oaks.val.rescore import rescore_results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fit a score to an estimator's results and rescore others.")
    parser.add_argument("results", help="COCO keypoint results for the annotated pictures")
    parser.add_argument("annotations", help="COCO keypoint annotations")
    parser.add_argument("others", help="COCO keypoint results that get the new score")
    parser.add_argument("--estimator", default="unknown", help="its name; a scorer serves no other estimator")
    parser.add_argument("--scorer", default="scorer", help="folder of the fitted scorer")
    parser.add_argument("--out", default="rescored.json", help="the results with the new score")
    given = parser.parse_args(arguments)

    fitted = oaks.fit.fit_results(
        given.results, given.annotations, out=given.scorer, estimator=given.estimator
    )
    fitted.print()  # average precision and calibration on people of images that it was not fitted to
    rescore_results(oaks.Scorer(given.scorer), given.others, given.out, estimator=given.estimator)
    before, after = read_results(given.others)[0], read_results(given.out)[0]
    for old, new in list(zip(before, after, strict=True))[:5]:
        print(f"image {new['image_id']}: score {old['score']:.2f} -> {new['score']:.2f}")
    print(f"{len(after)} poses: {given.out}")


if __name__ == "__main__":
    main()
