"""The page on the gauntlet is the one that the registry writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.document import page, paragraph

PAGE = Path(__file__).parents[2] / "docs" / "gauntlet.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m anti_i2v_lit.purifications.document > docs/gauntlet.md"
    )


def test_every_purification_has_a_line() -> None:
    found = re.findall(r"^\| `(\w+)` \|", page(), flags=re.MULTILINE)
    assert found == PURIFICATIONS.names()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page()):
        assert (PAGE.parent / target).is_file(), target


def test_paragraphs_end_at_the_blank_line() -> None:
    text = "First.\n\n    Source: one\n    two.\n\n    Args:\n"
    assert paragraph(text, "Source:") == "one two."
    with pytest.raises(ValueError, match="without 'Severity'"):
        paragraph(text, "Severity")
