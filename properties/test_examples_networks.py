"""The networks in examples/ run as they are, and print what they claim."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

CLAIMS = {
    "convert_unet": ("masked                 4   0.0000", "boundary"),
    "carry_masks": ("filled with NaN changes nothing: True", "right: "),
    "language_model": ("see nothing of what follows: True", "The Owl looked up"),
}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks, and tests beside this one
    yield
    torch.set_num_threads(threads)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CLAIMS)
def test_example_runs_and_says_what_it_shows(name, one_thread, capsys):
    module = importlib.import_module(f"examples.{name}")
    module.main()
    printed = capsys.readouterr().out
    for claim in CLAIMS[name]:
        assert claim in printed
    assert f"python3 -m examples.{name}" in module.__doc__
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("name", ["impls._convert", "impls._carry.sequential"])
def test_examples_in_docstrings_hold(name):
    found = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert found.attempted
    assert not found.failed
