import json
import math

import numpy as np
import pytest

from anti_i2v_lit.archive.row import Row, decode_row, encode_row


def full_row(**changes):
    values = dict(
        key="a/b.jpg", status="cloaked", source="/in/a/b.jpg", source_sha256="0" * 64,
        source_mtime_ns=1_700_000_000_123_456_789,
        output="a/b.jpg", output_sha256="1" * 64, surrogates=("x", "y"), config_sha256="2" * 64,
        seed=3, steps=200, budget_8bit=16, seconds=1.5, loss_first=1.0, loss_last=0.1,
        psnr=34.25, ssim=0.9, ciede2000=1.2, lpips=0.05, max_change_8bit=16.0,
        residual_kept=0.8, loss_kept=0.7, recorded="2025-01-01T00:00:00+00:00",
    )  # fmt: skip
    return Row(**{**values, **changes})


@pytest.mark.parametrize(
    "row",
    [
        full_row(),
        full_row(psnr=math.inf),
        Row(key="k", status="failed", reason="line\nbreak \u2028 and \x00", loss_last=-math.inf),
        Row(key="\udcff.jpg", status="refused", reason="名前"),
    ],
    ids=["full", "infinite psnr", "odd text", "file name that is not UTF-8"],
)
def test_a_row_comes_back_from_one_line_of_strict_json(row):
    line = encode_row(row)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")

    def refuse(constant):
        raise AssertionError(f"not strict JSON: {constant}")

    json.loads(line, parse_constant=refuse)
    assert decode_row(line) == row


def test_nan_stays_nan():
    back = decode_row(encode_row(Row(key="k", status="failed", loss_last=math.nan)))
    assert math.isnan(back.loss_last)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "done"}, "cloaked, refused, failed"),
        ({"output": ""}, "needs its output"),
        ({"output": "/etc/x.jpg"}, "in the folder"),
        ({"output": "../x.jpg"}, "in the folder"),
        ({"loss_last": math.nan}, "'failed', not 'cloaked'"),
        ({"psnr": np.float32(3)}, r"psnr must be an int or a float, got float32.*float\(\)"),
        ({"psnr": "34"}, "psnr must be"),
        ({"steps": None}, "steps must be"),
        ({"reason": None}, "reason must be text"),
    ],
)
def test_bad_values_are_refused_with_the_photo_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        full_row(**changes)
    assert "a/b.jpg" in str(caught.value)


def test_two_dots_inside_a_name_are_fine():
    assert full_row(output="a..b/c..jpg").output == "a..b/c..jpg"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not a line of JSON"),
        (b"[]", "expected a JSON object"),
        (b'{"key": "k", "status": "failed", "psnrr": 3}', "unknown column 'psnrr'.*'psnr'"),
        (b'{"status": "failed"}', "'key' is missing"),
        (b'{"key": "k", "status": "failed", "psnr": "high"}', "psnr must be"),
    ],
)
def test_foreign_lines_are_refused(line, message):
    with pytest.raises(ValueError, match=message):
        decode_row(line)
