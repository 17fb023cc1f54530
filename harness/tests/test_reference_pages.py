"""The generated pages hold every name that there is."""

import importlib

from harness import api
from harness.docstrings import told
from harness.reference_pages import api_page, variant_page
from harness.table import load_table

TABLE = load_table()


def test_every_name_that_plugins_may_import_stands_in_the_reference() -> None:
    page = api_page(TABLE)
    assert [name for name in api.__all__ if f"### `{name}`" not in page] == []


def test_every_public_name_of_every_variant_stands_in_the_reference() -> None:
    page = api_page(TABLE)
    names = [n for v in TABLE.variants for n in importlib.import_module(f"impls.{v}").__all__]
    assert [name for name in names if name != "VARIANT" and f"`{name}`" not in page] == []


def test_every_implementation_stands_in_the_catalogue_with_what_it_lacks() -> None:
    page = variant_page(TABLE)
    for variant in TABLE.variants.values():
        assert f"## {variant.name}\n\n    {variant.equation}\n" in page
        for one in variant.implementations:
            assert f"| `{one.name}` | {one.kind} |" in page
            assert all(reason in page for reason in one.lacks.values())


def test_pages_do_not_depend_on_the_machine() -> None:
    page = variant_page(TABLE) + api_page(TABLE)
    assert " at 0x" not in page
    assert "<function" not in page
    assert "no CUDA device" not in page


def test_sections_of_a_docstring_become_lists() -> None:
    doc = "Return a*b.\n\nArgs:\n    x, y: Shape `(N,\n        *S)`.\n\nRaises:\n    CaseError: no."
    assert told(doc) == [
        "Return a\\*b.", "", "Args:", "", "* `x, y`: Shape `(N, *S)`.", "", "Raises:", "",
        "* `CaseError`: no.", "",
    ]  # fmt: skip
