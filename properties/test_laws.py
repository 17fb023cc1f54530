"""Every law over every implementation that claims its traits."""

import warnings

import pytest

from harness.judge import BAD, as_verdict
from harness.search import search


def test_law(cell, table, device, profile, corpus, known, report_verdict):
    law, variant, implementation = cell
    key = (variant.name, implementation.name, law.id)
    first = [case for name, law_id, case in corpus if (name, law_id) == (variant.name, law.id)]
    first += [known[key].case] if key in known else []
    with warnings.catch_warnings():
        if implementation.origin:  # what a stranger's code warns of refutes nothing
            warnings.simplefilter("default")
        finding = search(
            law, variant, implementation, profile, device=device, variants=table.variants,
            first=first,
        )  # fmt: skip
    report_verdict(as_verdict("", law, variant, implementation, finding))
    if key in known:
        expected = known[key]
        assert finding.outcome is expected.outcome, (
            f"{'/'.join(key)} is {finding.outcome}, known as {expected.outcome}: {expected.reason}"
        )
        pytest.xfail(expected.reason)
    if finding.outcome in BAD:
        pytest.fail(f"{finding.outcome}\n{finding.screen}", pytrace=False)
    holes = [
        name
        for name, reason in finding.gaps.items()
        if not reason and profile.thorough and name.split()[0] in profile.dtypes
    ]
    assert not holes, f"nothing was executed in {', '.join(holes)}, and no reason is declared"
    if not finding.cases:
        pytest.skip(finding.screen)


def test_known_failures_are_of_pairs_that_are_judged(known, every_cell):
    judged = {
        (variant.name, implementation.name, law.id) for law, variant, implementation in every_cell
    }
    assert not known.keys() - judged, "known failures of nothing that is in the table"
