"""Options of every test below: what to judge, on which device, how hard."""

import os

import hypothesis
import pytest
import torch

# Hypothesis' own option --hypothesis-profile selects one of these; harness.search reads how many
# cases that means.
for _profile in ("quick", "dev", "ci", "deep"):
    hypothesis.settings.register_profile(_profile, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("convharness")
    for name, words in (
        ("variant", "only this variant"),
        ("implementation", "only this implementation"),
        ("law", "only this law, by id or name"),
        ("plugin", "a file or module with more implementations"),
    ):
        group.addoption(f"--{name}", action="append", default=[], metavar=name.upper(), help=words)
    group.addoption("--known", metavar="FILE", help="failures that are known, in place of ours")
    group.addoption(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where implementations run",
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # small cases: threads cost three times what they give
    if config.getoption("--hypothesis-profile", None) is None and os.environ.get("CI"):
        hypothesis.settings.load_profile("ci")
