"""Prints parameters and multiply-accumulates of the standard networks: python -m oaks.training.networks."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from oaks.training.networks import ResNet
from oaks.training.networks.ks_net import BACKBONES
from oaks.training.networks.resnet import LAYERS
from oaks.training.networks.summary import Size, describe, measure


def rows() -> list[tuple[str, str, Size]]:
    """Return (network, input, size) of the classifiers at 224×224 and of the pose networks at their usual inputs."""
    table = [
        (f"{name} classifier", "224×224", measure(ResNet(name, classes=1000), (3, 224, 224)))
        for name in LAYERS
    ]
    for size in ((192, 256), (288, 384)):
        label = f"{size[1]}×{size[0]}"
        for name in LAYERS:
            for head in ("fpn", "deconv", "upsample"):
                architecture = {"name": "oa_hpe", "backbone": name, "head": head, "input": size}
                table.append((f"OA-HPE {name} {head}", label, describe(architecture, size)))
        for width in (32, 48):
            table.append((f"HRNet-W{width}", label, describe({"name": "hrnet", "width": width}, size)))
    for name in BACKBONES:
        table.append((f"KS-net {name}", "96×72", describe({"name": "ks_net", "backbone": name}, (288, 384))))
    return table


def main() -> None:
    """Print the table."""
    table = Table("network", "input", "parameters", "GMAC")
    for name, size, cost in rows():
        table.add_row(name, size, f"{cost.parameters:,}", f"{cost.macs / 1e9:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
