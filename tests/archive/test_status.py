import datetime
import os

import pytest
import torch

from anti_i2v_lit.archive.in_flight import InFlightStore, Progress
from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.archive.lock import Claims
from anti_i2v_lit.archive.plan import record_total
from anti_i2v_lit.archive.reasons import Reasons
from anti_i2v_lit.archive.runs import Workplace, runs_folder
from anti_i2v_lit.archive.status import status

WHERE = {"node": "n3", "job": "7_1", "task": 2, "saved": "noon"}
FACTS = {"step": 120, "where": WHERE}


def at(begin, seconds):
    return (begin + datetime.timedelta(seconds=seconds)).isoformat()


def test_a_folder_without_a_manifest_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no manifest"):
        status(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        status(tmp_path / "nowhere")


def test_a_run_is_described_while_it_writes(tmp_path):
    with Claims(tmp_path, Workplace(job="7_1", devices=4, accelerator="cuda")) as claims:
        claims.claim(["p-0.tar"])
        begin = datetime.datetime.fromisoformat(claims.owner.started)
        ledger = Ledger(tmp_path)
        ledger.append(Row(key="old", status="cloaked", output="o", recorded=at(begin, -9e4)))
        for number in range(4):
            when = at(begin, 30 * (number + 1))
            ledger.append(Row(key=f"{number}", status="cloaked", output="o", recorded=when))
        ledger.append(Row(key="bad", status="failed", reason="zero bytes"))
        store = InFlightStore(tmp_path)
        store.save(("x", "y"), Progress(tensors={"d": torch.zeros(1)}, facts=FACTS))
        begun = ["old", "0", "1", "2", "3", "bad", "x", "y", "u", "v"]
        record_total(tmp_path, {"p-0.tar": begun, "p-1.tar": list("abcdef")})
        two_hours_on = begin.timestamp() + 7200
        os.utime(runs_folder(tmp_path) / f"{claims.owner.token}.json", (two_hours_on,) * 2)
        with ledger.path.open("ab") as stream:
            stream.write(b'{"key": "torn')
        found = status(tmp_path)
    assert found.running and found.total == 16
    assert found.counts == {"cloaked": 5, "refused": 0, "failed": 1}
    assert found.photos_per_hour == pytest.approx(120)
    assert found.seconds_left == pytest.approx(10 * 30)
    assert [(g.keys, g.step) for g in found.in_flight] == [(("x", "y"), 120)]
    text = found.render()
    for part in ("recorded   6 of 16", "120.0 photos per hour", "5 min 0 s",
                 "x, y at step 120 on n3, job 7_1, task 2, saved noon", "1 x zero bytes",
                 "GPU hours  8.00 spent, about 13.33 to go", ", 4 x cuda: p-0.tar",
                 "job 7_1"):  # fmt: skip
        assert part in text
    assert not status(tmp_path).running and status(tmp_path).workers == ()


def test_complete_means_a_row_for_every_photo_and_no_shard_left_to_write(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(Row(key="p/a", status="failed", reason="zero bytes"))
    assert not status(tmp_path).complete, "nobody knows how many there are"
    record_total(tmp_path, {"p.tar": ["p/a", "p/b"]})
    assert not status(tmp_path).complete
    ledger.append(Row(key="p/b", status="cloaked", output="p.tar/b.jpg"))
    assert status(tmp_path).complete
    (tmp_path / ".anti_i2v" / "shards" / "p").mkdir(parents=True)
    assert not status(tmp_path).complete


def test_complete_means_every_shard_of_the_campaign_whoever_works_on_it(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(Row(key="p/a", status="cloaked", output="p.tar/a.jpg"))
    record_total(tmp_path, {"p.tar": ["p/a"]}, ["p.tar", "q.tar", "r.tar"])
    found = status(tmp_path)
    assert not found.complete and found.uncounted == 2
    text = found.render()
    assert "recorded   1 of at least 1:" in text and "not begun  2 shards" in text
    record_total(tmp_path, {"q.tar": [], "r.tar": []}, ["p.tar", "q.tar", "r.tar"])
    assert status(tmp_path).complete and "at least" not in status(tmp_path).render()


def test_rows_of_photos_that_are_gone_make_nothing_complete(tmp_path):
    ledger = Ledger(tmp_path)
    for key in ("old", "\udcff"):
        ledger.append(Row(key=key, status="cloaked", output="o", seconds=60.0))
    record_total(tmp_path, {"files": ["new", "\udcff"]})
    found = status(tmp_path)
    assert not found.complete and found.seconds_left > 0
    assert (found.counts["cloaked"], found.strangers) == (1, 1)
    text = found.render()
    assert "recorded   1 of 2: 1 cloaked" in text
    assert "besides    1 photos that are not in the input any more" in text
    ledger.append(Row(key="new", status="failed", reason="zero bytes"))
    assert status(tmp_path).complete


def test_without_a_start_the_rate_comes_from_the_rows(tmp_path):
    for key, seconds in (("a", 10.0), ("b", 30.0)):
        Ledger(tmp_path).append(Row(key=key, status="cloaked", output=key, seconds=seconds))
    assert status(tmp_path).photos_per_hour == pytest.approx(180)


def test_names_that_are_not_utf_8_can_be_printed(tmp_path):
    Ledger(tmp_path).append(Row(key="\udcff", status="failed", reason="unreadable"))
    status(tmp_path).render().encode("utf-8")


def test_reasons_are_grouped_over_their_numbers_and_names():
    rows = [
        Row(key="a.jpg", status="refused", reason="a.jpg: CIEDE2000 3.4 is over 2"),
        Row(key="b.jpg", status="refused", reason="b.jpg: CIEDE2000 12.75 is over 2"),
        Row(key="c.jpg", status="failed", reason="zero bytes"),
        Row(key="d.jpg", status="refused", reason="zero bytes"),
        Row(key="e.jpg", status="failed"),
        Row(key="f.jpg", status="cloaked", output="f.jpg"),
    ]
    reasons = Reasons()
    for row in rows:
        reasons.add(row)
    found = [(g.status, g.reason, g.keys) for g in reasons.groups()]
    assert found == [
        ("refused", "a.jpg: CIEDE2000 3.4 is over 2", ("a.jpg", "b.jpg")),
        ("failed", "no reason recorded", ("e.jpg",)),
        ("failed", "zero bytes", ("c.jpg",)),
        ("refused", "zero bytes", ("d.jpg",)),
    ]


def test_of_many_photos_with_one_reason_a_few_are_named_and_all_counted(tmp_path):
    reasons = Reasons(keys_kept=2)
    ledger = Ledger(tmp_path)
    for number in range(7):
        row = Row(key=f"{number}.gif", status="refused", reason=f"animated, {number} frames")
        reasons.add(row)
        ledger.append(row)
    (group,) = reasons.groups()
    assert (group.count, group.keys) == (7, ("0.gif", "1.gif"))
    text = status(tmp_path).render()
    assert "7 x animated, 0 frames" in text and "4.gif" in text and "and 2 more" in text
    assert "5.gif" not in text
