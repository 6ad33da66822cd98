"""The report: self-contained, the same in three formats, and extensible."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from oaks.coco_results import write_results
from oaks.files import write_json
from oaks.val.coco_eval import coco_metrics
from oaks.val.detections import Detections
from oaks.val.evaluate import Settings, evaluate
from oaks.val.ground_truth import GroundTruth
from oaks.val.interval import Interval
from oaks.val.report import paper
from oaks.val.report.comparison import trainings_section
from oaks.val.report.document import Column, Report, Section, Table, format_cell
from oaks.val.report.figures import drawing
from oaks.val.report.head import headline_tiles, report_head
from oaks.val.report.writer import add_sections, html, load_report, markdown, save_report
from oaks.val.scores import ScoredDetections

from . import synthetic


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, Report, GroundTruth, [Detections]) of a file with ground-truth boxes and one with detected boxes."""
    folder = tmp_path_factory.mktemp("report")
    content = synthetic.annotations(8, images=30)
    for image in content["images"]:
        picture = np.full((384, 512, 3), 90, np.uint8)
        cv2.imwrite(str(folder / image["file_name"]), picture)
    write_json(folder / "truth.json", content)
    truth = GroundTruth.load(folder / "truth.json")
    results = []
    kinds = (("exact", "ground truth", "annotated: t"), ("loose", "detected", "detected: b"))
    for name, boxes, stated in kinds:
        rows = synthetic.detections(content, 8, boxes=boxes, noise=0.1)
        header = {
            "flip": True,
            "decoder": "second_peak",
            "nms": 0.9,
            "bundle_sha256": "ab12",
            "box_source": stated,
        }
        write_results(folder / f"{name}.json", rows, header)
        results.append(Detections.load(folder / f"{name}.json", truth))
    settings = Settings(resamples=30, beside_paper=True, images=folder)
    report = evaluate(truth, results, settings)
    save_report(report, folder / "out")
    return folder / "out", report, truth, results


class Page(HTMLParser):
    """Collects a page's references, tables and element ids."""

    def __init__(self, text):
        super().__init__()
        self.references, self.tables, self.tags, self.open = [], [], [], []
        self.ids = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.tags.append(tag)
        self.ids += [(names["id"], tag)] if "id" in names else []
        self.references += [
            names[key] for key in ("src", "href", "xlink:href", "data", "action") if key in names
        ]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open.pop()

    def handle_data(self, text):
        if self.open:
            self.tables[-1][-1][-1] += text


def test_the_page_is_self_contained(made):
    text = (made[0] / "report.html").read_text()
    page = Page(text)
    assert page.references
    assert all(
        r.startswith(("#", "data:image/jpeg;base64,", "data:image/png;base64,")) for r in page.references
    )
    assert "link" not in page.tags
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", text)
    assert page.tags.count("script") == 1
    assert page.tags.count("svg") >= 10


def test_referenced_ids_are_unique(made):
    """Drawings may share the ids of clips and markers, which are made of their content."""
    page = Page((made[0] / "report.html").read_text())
    own = [name for name, tag in page.ids if tag not in ("clippath", "path")]
    assert len(own) == len(set(own)) > 20
    referred = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert referred <= {name for name, _ in page.ids}


def test_the_report_has_every_section_and_item(made):
    keys = [section.key for section in made[1].sections]
    assert keys == ["ranking", "occlusion", "calibration", "visibility", "cases"]
    items = {item.key for section in made[1].sections for item in section.items}
    for name in ("exact", "loose"):
        assert {
            f"{key}-{name}"
            for key in ("ranking", "curves", "errors", "stages", "kinds", "classes-all", "classes-own",
                        "gains", "reliability-class", "reliability-size", "correlation", "calibration",
                        "thresholds", "visibility", "flags", "similarity", "heat-against-ks", "ks-against-ks")
        } <= items  # fmt: skip
    assert {"class-counts", "histograms-exact", "paper-ranking-exact", "networks", "paper-gains-exact", "wrong", "best",
            "worst"} <= items  # fmt: skip


def test_html_json_and_markdown_hold_the_figures_of_pycocotools(made):
    folder, _, truth, results = made
    content = json.loads((folder / "report.json").read_text())
    tables = {item["key"]: item for section in content["sections"] for item in section["items"]}
    page = Page((folder / "report.html").read_text())
    text = (folder / "report.md").read_text()
    for found in results:
        expected = coco_metrics(truth, found.image, found.keypoints, found.scores)
        table = tables[f"ranking-{found.name}"]
        row = next(row for row in table["rows"] if row[0] == "OAKS")
        values = [None if np.isnan(value) else value for value in expected.values()]
        assert row[1:11] == values
        shown = ["OAKS", *("–" if v is None else f"{100 * v:.1f}" for v in values)]
        assert any(line[:11] == shown for shown_table in page.tables for line in shown_table)
        assert f"| {' | '.join(shown)} " in text


def test_the_head_states_what_the_figures_depend_on(made):
    text = (made[0] / "report.html").read_text()
    head = text[text.index('id="rest"') :]
    for expected in ("annotated: t", "detected: b", "second_peak", "Flip", "NMS", "SHA-256", "pycocotools",
                   "ab12", "30 resamples", "truth.json", "exact.json", "coco17"):  # fmt: skip
        assert expected in head, expected


def test_a_header_does_not_replace_what_the_head_says_of_its_file(made, tmp_path):
    truth, (found, *_) = made[2], made[3]
    path = tmp_path / "d.json"
    write_json(path, [])
    header = {"sha256": "foreign", "file": "other.json", "poses": 9, "decoder": "dark"}
    measured = ScoredDetections.of(truth, replace(found, path=str(path), header=header))
    head = report_head(truth, [measured], judge="pycocotools", resamples=1, seed=0, landing="decoding")
    told = dict(dict(head)[f"Results: {found.name}"])
    assert told["SHA-256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (told["File"], told["Poses"], told["Decoder"]) == ("d.json", str(found.count), "dark")


def test_the_figures_of_the_paper_are_shown_only_on_request(made):
    content = made[1].sections[0].items[1]
    theirs = next(row for row in content.rows if row[:2] == ("OAKS", "paper"))
    assert theirs[2:5] == (0.748, 0.924, 0.817)
    without = evaluate(made[2], made[3][:1], Settings(resamples=5))
    text = html(without)
    assert "ResNet-101" not in text
    assert "paper-ranking" not in text
    assert [s.key for s in without.sections] == ["ranking", "occlusion", "calibration", "visibility"]


def test_a_report_is_read_back_unchanged(made):
    assert html(load_report(made[0])) == html(made[1])
    assert markdown(load_report(made[0])) == markdown(made[1])


def test_sections_are_added_and_replaced(made, tmp_path):
    def section(value):
        table = Table("t", "A table", (Column("a", "text"), Column("b")), (("x", value),))
        return Section("more", "More", "Of it.", (table,))

    save_report(Report("Begun"), tmp_path)
    add_sections(tmp_path, [section(0.25)])
    add_sections(tmp_path, [section(0.75)])
    again = load_report(tmp_path)
    assert [s.key for s in again.sections] == ["more"]
    assert again.sections[0].items[0].rows == (("x", 0.75),)
    assert "75.0" in (tmp_path / "report.md").read_text()
    add_sections(tmp_path / "new", [section(0.5)])
    assert load_report(tmp_path / "new").sections[0].key == "more"


def test_sections_that_several_runs_add_at_once_are_all_kept(tmp_path):
    start = threading.Barrier(4)

    def add(key: str) -> None:
        start.wait()
        add_sections(tmp_path / "new", [Section(key, key, "", ())])

    threads = [threading.Thread(target=add, args=(key,)) for key in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(section.key for section in load_report(tmp_path / "new").sections) == ["a", "b", "c", "d"]


def test_another_json_file_is_refused_as_a_report(tmp_path):
    (tmp_path / "report.json").write_text('{"title": "x"}')
    with pytest.raises(ValueError, match=r"report\.json is not a report"):
        load_report(tmp_path)
    (tmp_path / "report.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="newer"):
        load_report(tmp_path)


def test_texts_are_escaped_in_the_page():
    table = Table("t", "<b>T</b>", (Column("<i>", "text"),), (("<script>alert(1)</script>",),))
    text = html(Report("<img>", sections=[Section("s", "&", "<p>", (table,))]))
    assert "<script>alert" not in text
    assert "&lt;img&gt;" in text


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (0.12345, "percent", "12.3"),
        (0.0123, "points", "+1.2"),
        (-0.0123, "points", "−1.2"),
        (-0.00001, "points", "0.0"),
        (0.12345, "number", "0.123"),
        (12345, "count", "12 345"),
        (float("nan"), "percent", "–"),
        (None, "number", "–"),
        ("so", "text", "so"),
        (Interval(0.5, 0.4, 0.6), "percent", "50.0 [40.0, 60.0]"),
        (Interval(0.5, float("nan"), float("nan")), "percent", "50.0"),
    ],
)
def test_cells_are_formatted_by_kind(cell, kind, text):
    assert format_cell(cell, kind) == text


def test_a_row_with_a_missing_cell_is_refused():
    with pytest.raises(ValueError, match="must have 2 cells"):
        Table("t", "T", (Column("a"), Column("b")), ((1.0,),))


def test_results_with_the_same_name_are_refused(made):
    with pytest.raises(ValueError, match="name"):
        evaluate(made[2], [made[3][0], made[3][0]])
    with pytest.raises(ValueError, match="at least one"):
        evaluate(made[2], [])


def test_files_of_the_same_box_source_are_compared(made):
    truth, exact = made[2], made[3][0]
    report = evaluate(truth, [exact, replace(exact, name="again")], Settings(resamples=5))
    section = next(section for section in report.sections if section.key == "comparison")
    assert section.items[0].rows[0][3] == Interval(0, 0, 0)


def test_trainings_are_compared_under_two_scores(made):
    measured = [ScoredDetections.of(made[2], made[3][0])] * 3
    keys = ("heat_true_visibility", "oaks_true_visibility")
    table = trainings_section(measured, measured, *keys).items[0]
    found, scores = made[3][0], measured[0].scores
    expected = [coco_metrics(made[2], found.image, found.keypoints, scores[key].ranks)["AP"] for key in keys]
    figure, mean, deviation, other, _, difference, _, significant = table.rows[0]
    assert figure == "AP"
    assert (mean, other, difference) == pytest.approx((*expected, expected[1] - expected[0]))
    assert (deviation, significant) == (pytest.approx(0, abs=1e-12), "no")
    assert table.title.startswith(
        "Heat, true visibility against Predicted KS, true visibility over 3 trainings"
    )
    with pytest.raises(ValueError, match="one figure per training"):
        trainings_section(measured, measured[:2], *keys)
    with pytest.raises(ValueError, match=r"score must be one of .* got 'luck'"):
        trainings_section(measured, measured, keys[0], "luck")


def test_figures_of_the_paper_are_consistent():
    assert sum(paper.CLASS_COUNTS.values()) == 6352
    assert len(paper.VISIBILITY_ACCURACY) == 17
    by_similarity = paper.GROUND_TRUTH_BOXES["oaks_true_visibility"]
    assert paper.KS_NET_BACKBONES["resnet18"][1]["AP"] == by_similarity["AP"]


def test_undefined_intervals_are_hidden_and_minus_signs_are_typographic(made):
    nothing, lost = Interval(math.nan, math.nan, math.nan), Interval(-0.02, -0.03, -0.01)
    table = Table("t", "t", (Column("Gain", "points"),), ((nothing,), (lost,)))
    page = html(Report(title="t", sections=[Section("s", "s", "", (table,))]))
    assert "– … –" not in page
    assert "−3.0 … −1.0" in page
    measured = ScoredDetections.of(made[2], made[3][0])
    low, high = {"AP": 0.5}, {"AP": 0.6}
    ranking = {"conventional": low, "oracle": high, measured.best.key: {"AP": 0.4}}
    assert headline_tiles(made[2], measured, ranking)[1].value == "−100 %"


def test_titles_name_the_results_file_only_if_there_are_several(made):
    """With one file, titles begin with what they are about."""
    _, report, truth, results = made
    both = [item.title for section in report.sections for item in section.items]
    assert sum(title.startswith("exact") for title in both) > 5
    one = evaluate(truth, results[:1], Settings(resamples=2))
    titles = [text for s in one.sections for text in (s.title, *(item.title for item in s.items))]
    assert not [title for title in titles if "exact" in title]
    assert "Ground-truth boxes: average precision and recall" in titles
    assert "Precision and recall at OKS .75" in titles


def test_drawings_have_no_background():
    """In a dark theme, white panels would hide labels that the page makes bright."""
    with drawing(2, 1) as draft:
        draft.canvas.subplots().plot([0, 1])
    assert "stroke: #" in draft.svg
    assert "fill: #ffffff" not in draft.svg
