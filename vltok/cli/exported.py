"""What the command line says of an export that is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vltok.errors import how_many

if TYPE_CHECKING:
    from vltok.sequences.manifest import CodeManifest


def print_export(manifest: CodeManifest, folder: Path) -> None:
    """Print what it holds.

    Args:
        manifest: The export's.
        folder: Where it is.
    """
    if manifest.skipped:
        print(f"skipped {how_many(len(manifest.skipped), 'picture')} that cannot be read; codes.json names them")
    figures = manifest.statistics
    ratios = ", ".join(f"factor {factor}: {share:.1%}" for factor, share in figures["ratios"].items())
    length = figures["length"]
    print(
        f"{how_many(figures['samples'], 'sequence')} of {length['mean']:.1f} codes (from {length['minimum']} to "
        f"{length['maximum']}){f', {ratios}' if ratios else ''}; "
        f"{figures['bits_per_pixel']['codes_and_grain_map']:.3f} bits per pixel; written to {folder}"
    )
