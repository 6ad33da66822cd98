"""Every code block of README.md, ARCHITECTURE.md and docs/ runs, or says why it does not."""

from __future__ import annotations

import pytest

from .pages import PAGES, ROOT, RUN, SHOWN, Block, blocks_of, check_block, furnish, run_page


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
    assert run_page(page, folder, slow=False) == len(fast)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", SLOW, ids=name)
def test_all_blocks_of_a_page_run_in_order(page, folder):
    assert run_page(page, folder, slow=True) > 0


NOT_RUN = [b for blocks in BLOCKS.values() for b in blocks if b.mode == "not run"]


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: block.place)
def test_a_block_that_is_not_run_names_only_what_exists(block):
    check_block(block)


@pytest.mark.parametrize(
    ("language", "text", "says"),
    [
        ("python", "from oaks import Engin\n", "oaks has no Engin"),
        ("sh", "oaks predict photo.jpg --detecter x.onnx\n", "No such option: --detecter"),
        ("sh", "cd here && oaks predct photo.jpg\n", "No such command 'predct'"),
        ("sh", "oaks val run\n", "Missing argument"),
        ("sh", "pip install '.[vidoe]' && oaks doctor\n", "no extra is called vidoe"),
    ],
)
def test_a_name_that_does_not_exist_is_found(language, text, says):
    with pytest.raises(AssertionError, match=f"page.md:1: .*{says}"):
        check_block(Block("page.md", 1, language, text, mode="not run"))


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
    code = [b for blocks in BLOCKS.values() for b in blocks if b.language in RUN]
    slow = sum(b.mode == "slow" for b in code)
    tell(f"{len(code)} code blocks: {slow} only with the marker slow, {len(left_out)} not run:")
    for block in left_out:
        tell(f"  {block.place}: {block.reason}")
    assert len(code) > 30


def test_a_block_that_fails_is_named(folder):
    page = folder / "page.md"
    page.write_text("# Page\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as failure:
        run_page(page, folder, slow=False)
    assert failure.traceback[-1].lineno + 1 == 8
    page.write_text("```sh\noaks predict missing.jpg\n```\n")
    with pytest.raises(AssertionError, match=r"page.md:2: `oaks predict missing.jpg` ended with exit code 2"):
        run_page(page, folder, slow=False)
    page.write_text("```sh\nrm -rf somewhere\n```\n")
    with pytest.raises(AssertionError, match="only `oaks` can be run"):
        run_page(page, folder, slow=False)
