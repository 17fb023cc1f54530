"""Which run's samples are shown, and how pytest-benchmark is given them."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run", type=Path, metavar="RUN", help="results folder with the samples")
