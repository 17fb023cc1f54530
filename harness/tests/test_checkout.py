"""A checkout that a variable names is imported, or one line says what is wrong."""

import sys

import pytest

from harness.api import checkout

URL = "github.com/someone/convolution"
EXPECTED = f"PUBLISHED_PATH must name the folder of a checkout of {URL}: "


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "published_code").mkdir()
    (tmp_path / "published_code" / "layers.py").write_text("import published_sizes\nK = 3\n")
    (tmp_path / "published_sizes.py").write_text("")
    monkeypatch.setenv("PUBLISHED_PATH", str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("published_")]:
        del sys.modules[name]


def test_a_module_is_imported_and_the_path_is_left_as_it_was(folder):
    before = list(sys.path)
    assert checkout("PUBLISHED_PATH", "published_code.layers", URL).K == 3
    assert sys.path == before


def test_an_unset_variable_is_named(folder, monkeypatch):
    monkeypatch.delenv("PUBLISHED_PATH")
    with pytest.raises(ImportError) as told:
        checkout("PUBLISHED_PATH", "published_code.layers", URL)
    assert str(told.value) == EXPECTED + "it is not set"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'published_code.layers'"),
        ("import published_absent", "ModuleNotFoundError: No module named 'published_absent'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_folder_without_the_module_is_named(folder, text, reason):
    path = folder / "published_code" / "layers.py"
    path.unlink() if text is None else path.write_text(text)
    before = list(sys.path)
    with pytest.raises(ImportError) as told:
        checkout("PUBLISHED_PATH", "published_code.layers", URL)
    assert str(told.value) == EXPECTED + (
        f"importing published_code.layers from {folder} raised {reason}"
    )
    assert sys.path == before


def test_a_module_from_elsewhere_is_no_checkout(folder):
    with pytest.raises(ImportError, match=r"json comes from .*, outside of "):
        checkout("PUBLISHED_PATH", "json", URL)
