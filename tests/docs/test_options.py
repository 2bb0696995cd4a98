"""docs/options.md is what the requests say (which tests/farm/requests/test_options.py looks at)."""

from jobs.methods import options_page
from tests.docs.blocks import ROOT


def test_the_page_is_current():
    written = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert written == options_page(), "write it anew: editfarm methods page > docs/options.md"
