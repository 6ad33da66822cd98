"""Every code block of README.md, ARCHITECTURE.md and docs/ runs, or says why it does not."""

from __future__ import annotations

import json

import pytest

import oaks.ray

from .pages import (
    PAGES,
    ROOT,
    RUN,
    SHOWN,
    SLOW_FURNITURE,
    Block,
    blocks_of,
    furnish,
    furnish_coco,
    furnish_for_ray,
    run_page,
)
from .static import check_block, check_inline, commands_of_example, inline_code


def name(path):
    return path.relative_to(ROOT).as_posix()


BLOCKS = {path: blocks_of(path) for path in PAGES}
FAST = [p for p, blocks in BLOCKS.items() if any(b.language in RUN and b.mode == "run" for b in blocks)]
SLOW = [p for p, blocks in BLOCKS.items() if any(b.language in RUN and b.mode == "slow" for b in blocks)]


@pytest.fixture
def folder(tmp_path):
    furnish(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", FAST, ids=name)
def test_blocks_of_a_page_run_in_order(page, folder):
    fast = [b for b in BLOCKS[page] if b.language in RUN and b.mode == "run"]
    assert run_page(page, folder) == len(fast)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", SLOW, ids=name)
def test_all_blocks_of_a_page_run_in_order(page, folder):
    if name(page) in SLOW_FURNITURE:
        SLOW_FURNITURE[name(page)](folder)
    assert run_page(page, folder, ("run", "slow")) > 0


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_blocks_of_the_page_on_ray_run_in_order(folder, capsys):
    pytest.importorskip("ray")
    furnish_for_ray(folder)
    try:
        assert run_page(ROOT / "docs" / "ray.md", folder, ("ray",)) == 3
    finally:
        __import__("ray").shutdown()
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(folder / "people", columns=["id"])["id"].to_pylist() == [7]
    assert len(list((folder / "poses" / "parts").glob("*.parquet"))) == 2
    assert ".parquet" not in capsys.readouterr().out  # no part has errors


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_training_on_ray_runs(folder):
    """Two workers on CPUs, for a narrow network and a dozen people."""
    ray = pytest.importorskip("ray")
    furnish_coco(folder)
    try:
        oaks.ray.connect()
        assert run_page(ROOT / "docs" / "training.md", folder, ("ray",)) == 1
    finally:
        ray.shutdown()
    assert (folder / "on_ray" / "network.safetensors").is_file()
    assert json.loads((folder / "on_ray" / "run.json").read_text())


CODE = [b for blocks in BLOCKS.values() for b in blocks if b.language in RUN]


@pytest.mark.parametrize("block", CODE, ids=lambda block: block.place)
def test_a_block_takes_only_what_exists(block):
    check_block(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_command_or_option_in_the_text_exists(page):
    for line, code in inline_code(page.read_text("utf-8")):
        check_inline(f"{name(page)}:{line}", code)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").iterdir()), ids=name)
def test_a_command_in_an_example_exists(path):
    if path.suffix in (".py", ".ipynb"):
        for line, code in commands_of_example(path):
            check_inline(f"{name(path)}:{line}", code)


@pytest.mark.parametrize(
    ("language", "text", "says"),
    [
        ("python", "from oaks import Engin\n", "oaks has no Engin"),
        ("python", "import oaks\noaks.Engin('small')\n", "oaks has no Engin"),
        (
            "python",
            "import oaks\noaks.fit.fit_results('a', 'b', output='c')\n",
            "missing a required|unexpected",
        ),
        (
            "python",
            "from oaks.video import Tracker\nTracker(1, gat=2)\n",
            "unexpected keyword argument 'gat'",
        ),
        ("sh", "oaks predict photo.jpg --detecter x.onnx\n", "No such option: --detecter"),
        ("sh", "cd here && oaks predct photo.jpg\n", "No such command 'predct'"),
        ("sh", "oaks val run\n", "Missing argument"),
        ("sh", "torchrun -m oaks train paper_hpe --outt x\n", "No such option: --outt"),
        ("sh", "pip install '.[vidoe]' && oaks doctor\n", "no extra is called vidoe"),
        ("sh", "make instal\n", "make has no target instal"),
        ("sh", "OAKS_CUDE=on pip wheel .\n", "nothing reads OAKS_CUDE"),
        ("sh", "python benchmarks/papers.py\n", "there is no benchmarks/papers.py"),
        ("sh", "python benchmarks/paper.py DATA --logg x\n", "paper.py has no option --logg"),
    ],
)
def test_what_does_not_exist_is_found(language, text, says):
    with pytest.raises(AssertionError, match=f"page.md:1: .*({says})"):
        check_block(Block("page.md", 1, language, text, mode="not run"))


def test_a_recipe_that_does_not_exist_is_found():
    with pytest.raises((ValueError, FileNotFoundError), match="paper_hpee"):
        check_block(Block("page.md", 1, "sh", "oaks train paper_hpee --out runs\n"))
    with pytest.raises(ValueError, match="epoch"):
        check_block(Block("page.md", 1, "sh", "oaks train paper_hpe --out runs --set training.epoch=2\n"))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("oaks predict --boxs", "No such option: --boxs"),
        ("oaks predct", "No such command 'predct'"),
        ("--detecter x.onnx", "no command has the option --detecter"),
        ("make tset", "make has no target tset"),
        ("OAKS_LIMIT_PIXELS=4 oaks predict photo.jpg", "no limit is set by OAKS_LIMIT_PIXELS"),
    ],
)
def test_a_part_of_a_command_that_does_not_exist_is_found(code, says):
    with pytest.raises(AssertionError, match=f"page.md:1: .*{says}"):
        check_inline("page.md:1", code)


def test_a_part_of_a_command_may_lack_the_rest():
    text = "Use `oaks val`, `oaks predict --boxes`, `oaks fit`\n`--every 5` or\n```sh\noaks nothing\n```\n`poses.scores`\n"
    found = list(inline_code(text))
    assert found == [
        (1, "oaks val"), (1, "oaks predict --boxes"), (1, "oaks fit"), (2, "--every 5"), (6, "poses.scores")
    ]  # fmt: skip
    assert [check_inline("page.md", code) for _, code in found] == [True, True, True, True, False]


def test_every_block_has_a_language_and_every_exception_a_reason(tell):
    left_out = []
    for blocks in BLOCKS.values():
        for block in blocks:
            assert block.language in RUN + SHOWN, f"{block.place}: a language of {RUN + SHOWN} is needed"
            if block.language not in RUN:
                assert block.mode == "run", f"{block.place}: only code can be left out"
            elif block.mode == "not run":
                assert len(block.reason) > 5, f"{block.place}: a reason is needed"
                left_out.append(block)
    slow = sum(b.mode == "slow" for b in CODE)
    tell(f"{len(CODE)} code blocks: {slow} only with the marker slow, {len(left_out)} not run:")
    for block in left_out:
        tell(f"  {block.place}: {block.reason}")
    assert len(CODE) > 30


def test_a_block_that_fails_is_named(folder):
    page = folder / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as failure:
        run_page(page, folder)
    assert failure.traceback[-1].lineno + 1 == 8
    page.write_text("```sh\noaks predict missing.jpg\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:2: `oaks predict missing.jpg` ended with exit code 2"):
        run_page(page, folder)
    page.write_text("```sh\nrm -rf somewhere\n```\n")
    with pytest.raises(AssertionError, match="only `oaks` and `curl` can be run"):
        run_page(page, folder)
