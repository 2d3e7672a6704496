import pytest

from anti_i2v_lit.archive.plan import (
    Candidate,
    Costs,
    bytes_text,
    duration_text,
    known_members,
    make_plan,
    read_total,
    record_total,
    uncounted_units,
)

PHOTOS = [
    Candidate(key="a", format="JPEG", size_bytes=1_000_000, pixels=10_000_000),
    Candidate(key="b", format="JPEG", size_bytes=2_000_000, pixels=20_000_000),
    Candidate(key="c", format="PNG", size_bytes=3_000_000, pixels=5_000_000),
    Candidate(key="d", format="GIF", size_bytes=5, refusal="animated"),
]


def photos(shard, count):
    return [f"{shard}/{number}.jpg" for number in range(count)]


def test_a_plan_adds_up():
    costs = Costs(
        seconds_per_photo=60, devices=2, batch_size=4, fixed_bytes=1_000_000_000,
        bytes_per_photo=100_000_000, bytes_per_pixel=50, size_growth=2,
    )  # fmt: skip
    plan = make_plan(PHOTOS, {"a"}, costs, free_bytes=9_000_000)
    assert plan.formats == {"JPEG": 2, "PNG": 1} and plan.refusals == (("d", "animated"),)
    assert (plan.done, plan.remaining) == (1, 2)
    assert plan.seconds == 60
    assert plan.memory_bytes == 1_000_000_000 + 2 * 100_000_000 + 20_000_000 * 50
    assert plan.disk_bytes == 10_000_000
    text = plan.render()
    assert "2 JPEG, 1 PNG" in text and "d: animated" in text and "NOT ENOUGH" in text
    assert "1 min 0 s" in text


def test_nothing_to_do_costs_nothing():
    plan = make_plan([], set(), Costs(seconds_per_photo=60, devices=8))
    assert (plan.seconds, plan.remaining, plan.memory_bytes) == (0, 0, 0)
    assert "photos     0 (none)" in plan.render()


def test_many_refusals_are_cut_and_counted():
    many = [Candidate(key=f"{i}", refusal="zero bytes") for i in range(30)]
    assert "and 10 more" in make_plan(many, set(), Costs(seconds_per_photo=1)).render()


@pytest.mark.parametrize("field", ["seconds_per_photo", "devices", "batch_size"])
def test_costs_are_checked(field):
    with pytest.raises(ValueError, match=field):
        Costs(**{"seconds_per_photo": 1, field: -1})


def test_units():
    assert [duration_text(s) for s in (9, 250, 7500, 100_000)] == [
        "9 s", "4 min 10 s", "2 h 5 min", "1 d 3 h"
    ]  # fmt: skip
    assert [bytes_text(b) for b in (5, 1500, 2.5e6, 3e9, 4e12)] == [
        "5 B", "1.5 kB", "2.5 MB", "3.0 GB", "4.0 TB"
    ]  # fmt: skip


def test_the_total_is_kept(tmp_path):
    assert read_total(tmp_path) is None and uncounted_units(tmp_path) == 0
    record_total(tmp_path, {"a.tar": photos("a", 3), "b.tar": photos("b", 2)})
    record_total(tmp_path, {"b.tar": photos("b", 4)})
    assert read_total(tmp_path) == 7 and uncounted_units(tmp_path) == 0
    members = known_members(tmp_path)
    assert "a/2.jpg" in members and "b/3.jpg" in members
    assert "a/3.jpg" not in members and "b/4.jpg" not in members
    record_total(tmp_path, {"a.tar": photos("a", 3)}, ["a.tar", "c.tar", "d.tar"])
    assert read_total(tmp_path) == 7 and uncounted_units(tmp_path) == 2
    record_total(tmp_path, {"c.tar": photos("c", 0), "d.tar": photos("d", 1)}, ["d.tar"])
    assert read_total(tmp_path) == 8 and uncounted_units(tmp_path) == 0
    (tmp_path / ".anti_i2v" / "total.json").write_text("7")
    assert read_total(tmp_path) is None


def test_totals_of_earlier_versions_are_read(tmp_path):
    record_total(tmp_path, {"a.tar": photos("a", 3)})
    (tmp_path / ".anti_i2v" / "total.json").write_text('{"photos": {"a.tar": 3, "b.tar": 2}}')
    assert read_total(tmp_path) == 5 and uncounted_units(tmp_path) == 0
    assert known_members(tmp_path) is None, "of b.tar only the number is known"
    record_total(tmp_path, {"b.tar": photos("b", 2)}, ["a.tar", "b.tar", "c.tar"])
    assert read_total(tmp_path) == 5 and uncounted_units(tmp_path) == 1
