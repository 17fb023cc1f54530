"""Every law over every implementation that claims its traits."""

import pytest

from harness.judge import BAD, as_verdict
from harness.search import search


def test_law(cell, table, device, profile, corpus, verdicts):
    law, variant, implementation = cell
    first = [case for name, law_id, case in corpus if (name, law_id) == (variant.name, law.id)]
    finding = search(
        law, variant, implementation, profile, device=device, variants=table.variants, first=first
    )
    verdicts.append(as_verdict("", law, variant, implementation, finding))
    if finding.outcome in BAD:
        pytest.fail(f"{finding.outcome}\n{finding.screen}", pytrace=False)
    if not finding.cases:
        pytest.skip(finding.screen)
