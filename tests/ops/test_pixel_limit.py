"""One limit for all threads: it comes back when nobody needs it lifted any more."""

from __future__ import annotations

import pytest
from PIL import Image

from anti_i2v_lit.ops.pixel_limit import without_pixel_limit


def test_the_limit_stays_lifted_while_anybody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    first, second = without_pixel_limit(), without_pixel_limit()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as by a thread that is done earlier
    assert Image.MAX_IMAGE_PIXELS is None
    second.__exit__(None, None, None)
    assert Image.MAX_IMAGE_PIXELS == 100
