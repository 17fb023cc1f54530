"""Tables come back as they were, and damage is never read as data."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from harness.evidence import Evidence, Made, load_evidence, markdown
from harness.results import ResultsError

MADE = Made(date="2026-01-31", commit="c" * 40, machine="two cores", command="make tables")
TABLE = Evidence(
    name="small", title="A small table", about="Shows little.", made=MADE,
    columns=("what", "how many", "ratio"), rows=(("a", 1, 0.5), ("b", 2, 1.25)),
)  # fmt: skip


def test_tables_come_back_as_they_were_sorted_by_name(tmp_path):
    other = replace(TABLE, name="other", rows=())
    for table in (TABLE, other):
        assert table.save(tmp_path).name == f"{table.name}.json"
    assert load_evidence(tmp_path) == (other, TABLE)
    (count, _) = load_evidence(tmp_path)[1].column("how many")
    assert isinstance(count, int)


def test_equal_tables_give_equal_bytes(tmp_path):
    first = TABLE.save(tmp_path / "a").read_bytes()
    assert replace(TABLE).save(tmp_path / "b").read_bytes() == first
    assert list(json.loads(first)) == sorted(json.loads(first))


def test_no_folder_is_no_evidence(tmp_path):
    assert load_evidence(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [["a", 1]]}, r"rows\[0\] has 2 entries, columns 3"),
        ({"rows": [["a", 1, True]]}, r"rows=True must be float"),
        ({"rows": [["a", 1, None]]}, r"rows=None must be float"),
        ({"rows": "abc"}, "rows='abc' must be"),
        ({"name": "Small!"}, "name='Small!' must be small letters, digits and underscores"),
        ({"columns": ["a", "a", "b"]}, r"columns=\('a', 'a', 'b'\) must be one or more different"),
        ({"columns": []}, "must be one or more different headings"),
        ({"title": 3}, "title=3 must be str"),
        ({"surprise": 1}, "surprise is unknown"),
        ({"name": "another"}, "holds the table 'another', not 'small'"),
        ({"made": {"date": "2026-01-31"}}, "command is missing"),
        ({"made": {**dict.fromkeys(("commit", "machine", "command"), "x"), "date": ""}}, "date=''"),
    ],
)
def test_a_table_with_a_fault_is_refused_by_its_fault(tmp_path, change, message):
    path = TABLE.save(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ResultsError, match=message):
        load_evidence(tmp_path)


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "small.json").write_text("{")
    with pytest.raises(ResultsError, match=r"small\.json: is not JSON"):
        load_evidence(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot be written"):
        TABLE.save(tmp_path / "file")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_are_finite(number):
    with pytest.raises(ValueError, match="must be finite"):
        replace(TABLE, rows=(("a", 1, number),))


def test_an_entry_is_text_or_a_number():
    with pytest.raises(ValueError, match=r"rows\[0\]: True must be text or a number"):
        replace(TABLE, rows=(("a", 1, True),))


def test_the_page_shows_the_text_as_it_is_and_how_it_was_made():
    hostile = replace(TABLE, rows=(("a|b\n`c` <i>*d*", 1, 1 / 3),))
    page = markdown(hostile)
    assert page.startswith("# A small table\n\nShows little.\n\n| what | how many | ratio |\n")
    assert "| --- | ---: | ---: |" in page
    assert r"| a\|b \`c\` \<i\>\*d\* | 1 | 0.3333 |" in page
    assert page.endswith("Made on 2026-01-31 of cccccccccccc (two cores) by `make tables`.\n")
    assert "with changes" in markdown(replace(TABLE, made=replace(MADE, dirty="f00")))


def test_what_is_made_here_is_dated_and_names_the_machine(tmp_path):
    made = Made.here("make tables", datetime(2026, 1, 31, 12, tzinfo=UTC), root=tmp_path)
    assert (made.date, made.commit, made.command) == ("2026-01-31", "unknown", "make tables")
    assert "core" in made.machine
