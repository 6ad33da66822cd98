"""Networks on disk: they are read as written, and errors name files that are no networks."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from oaks.errors import ArgumentError
from oaks.training.checkpoint import check_archive, load_network, read_description, save_network
from oaks.training.networks import build
from tests.training.conftest import TINY

ARCHITECTURE = {**TINY, "input": [48, 64], "keypoints": 17}


def trained() -> torch.nn.Module:
    torch.manual_seed(0)
    network = build(ARCHITECTURE)
    network(torch.rand(4, 3, 64, 48))  # changes the statistics of batch norm
    return network


def test_a_network_is_read_as_written(tmp_path: Path) -> None:
    network, path = trained(), tmp_path / "runs" / "network.safetensors"
    description = {"kind": "pose", "architecture": ARCHITECTURE, "metrics": {"AP": 0.5}, "stride": 4}
    save_network(path, network, description)
    loaded, read = load_network(path)
    assert read == {"format": 1, **description}
    assert not loaded.training
    assert list(tmp_path.rglob("*.part")) == []
    crops = torch.rand(2, 3, 64, 48)
    for expected, found in zip(network.eval()(crops), loaded(crops), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_other_users_can_read_a_network(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_network(path, trained(), {"kind": "pose", "architecture": ARCHITECTURE})
    assert path.stat().st_mode & 0o777 == 0o644


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    network, description = trained(), {"kind": "pose", "architecture": ARCHITECTURE}
    save_network(tmp_path / "whole.safetensors", network, description)
    save_network(tmp_path / "half.safetensors", network, description, dtype=torch.float16)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded, _ = load_network(tmp_path / "half.safetensors")
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32, torch.int64}
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_description_must_describe_the_network(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="architecture must describe the network's parameters"):
        save_network(
            tmp_path / "a", trained(), {"kind": "pose", "architecture": {**ARCHITECTURE, "width": 0.25}}
        )
    with pytest.raises(ValueError, match="kind must be one of 'pose', 'ks', 'detector', got 'box'"):
        save_network(tmp_path / "a", trained(), {"kind": "box", "architecture": ARCHITECTURE})
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    with pytest.raises(FileNotFoundError, match=r"network\.safetensors"):
        read_description(path)
    for content in (b"", b"\0" * 100, b"no network"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"network\.safetensors must be a network saved by oaks"):
            load_network(path)
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="must be a network saved by oaks"):
        load_network(path)
    description = {"format": 2, "kind": "pose", "architecture": ARCHITECTURE}
    save_file({"a": torch.zeros(3)}, path, metadata={"oaks": json.dumps(description)})
    with pytest.raises(ValueError, match="must have format 1 .* got 2"):
        load_network(path)


def test_a_file_with_too_few_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_network(path, trained(), {"kind": "pose", "architecture": ARCHITECTURE})
    state = load_file(path)
    del state["head.final_layer.bias"]
    save_file(state, path, metadata={"oaks": json.dumps(read_description(path))})
    with pytest.raises(ValueError, match="weights must fit their description"):
        load_network(path)


def test_an_archive_of_several_disks_is_damaged(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    check_archive(tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    end = content.rindex(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 3)
    (tmp_path / "a.pth").write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(
        ArgumentError, match=r"a\.pth must be as it was written, got a damaged file: .*multiple disks"
    ):
        check_archive(tmp_path / "a.pth")
