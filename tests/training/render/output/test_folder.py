"""Arguments and folders that the writers of both data sets refuse."""

from __future__ import annotations

import pytest

from oaks.training.render import write_dataset, write_videos

SMALL = {"count": 1, "workers": 1, "progress": False, "seed": 2, "size": (64, 64)}


@pytest.mark.parametrize(
    ("write", "wrong"),
    [
        *((write, wrong) for write in (write_dataset, write_videos)
          for wrong in ({"count": 0}, {"workers": 0}, {"quality": 0}, {"quality": 101})),
        (write_videos, {"rate": 0}),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(tmp_path, write, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write(tmp_path, **{**SMALL, **wrong})


@pytest.mark.parametrize(("write", "changed"), [(write_dataset, {"seed": 3}), (write_videos, {"frames": 2})])
def test_a_folder_of_other_settings_is_refused(tmp_path, write, changed):
    settings = {**SMALL, **({"frames": 1} if write is write_videos else {})}
    write(tmp_path, **settings)
    with pytest.raises(ValueError, match="other settings"):
        write(tmp_path, **{**settings, **changed})
