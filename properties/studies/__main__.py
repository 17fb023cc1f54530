"""`python3 -m properties.studies [NAME...]`: make the studies, keep them as evidence and as pages."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from harness.clock import utc_now
from harness.evidence import EVIDENCE, ROOT, Made, markdown
from harness.terminal import write_lines
from properties.studies import activations, atlas, border

STUDIES = {
    "border_error": border.errors,
    "border_convergence": border.convergence,
    "border_atlas": atlas.rings,
    "activations": activations.statistics,
    "activation_maps": activations.maps,
}

DOCS = ROOT / "docs"


def main() -> None:
    """Make those that are named, or all."""
    parser = argparse.ArgumentParser(prog="python3 -m properties.studies", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*STUDIES, []], metavar="NAME")
    parser.add_argument("--out", type=Path, default=EVIDENCE, metavar="DIR")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.names or STUDIES:
        made = Made.here(f"python3 -m properties.studies {name}", utc_now())
        study = STUDIES[name](made)
        write_lines([f"written: {study.save(options.out)}"])
        if options.out == EVIDENCE:
            (DOCS / f"{name}.md").write_text(markdown(study), encoding="utf-8")


if __name__ == "__main__":
    main()
