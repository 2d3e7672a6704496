import json
import multiprocessing
import time
import tracemalloc

import pytest

from anti_i2v_lit.archive.files import clean_temporaries, sha256_of, write_whole
from anti_i2v_lit.archive.ledger import MANIFEST, Ledger, Row
from anti_i2v_lit.archive.row import encode_row

from .killing import run_and_kill_at_line

SETTINGS = {
    "seed": 1,
    "surrogates": [{"name": "embedded", "weight": 1.0}],
    "attack": {"steps": 200, "budget_8bit": 16, "step_8bit": 1.0, "transforms": []},
    "note": None,
}


def cloaked(key, **changes):
    return Row(key=key, status="cloaked", output=f"{key}.jpg", **changes)


def write_output(folder, key):
    (folder / f"{key}.jpg").parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{key}.jpg").write_bytes(key.encode())


def test_rows_come_back_in_order_and_the_last_one_counts(tmp_path):
    ledger = Ledger(tmp_path / "out")
    assert ledger.rows() == {} and ledger.finished() == set()
    ledger.append(Row(key="a", status="failed", reason="no memory"))
    ledger.append(Row(key="b", status="refused", reason="animated"))
    ledger.append(cloaked("a"))
    for reader in (ledger, Ledger(tmp_path / "out")):
        rows = reader.rows()
        assert list(rows) == ["a", "b"]
        assert rows["a"].status == "cloaked" and rows["b"].reason == "animated"
        assert rows["a"].recorded.endswith("+00:00")
    lines = (tmp_path / "out" / MANIFEST).read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b", "a"]


def test_finished_needs_the_output_file(tmp_path):
    ledger = Ledger(tmp_path)
    for key in ("here", "lost", "sub/here", "gone/lost"):
        ledger.append(cloaked(key))
    ledger.append(Row(key="bad", status="failed"))
    write_output(tmp_path, "here")
    write_output(tmp_path, "sub/here")
    assert ledger.finished() == {"here", "sub/here"}


def test_a_photo_is_not_recorded_twice_unless_it_is_retried(tmp_path):
    ledger = Ledger(tmp_path)
    write_output(tmp_path, "a")
    ledger.append(cloaked("a"))
    other = Ledger(tmp_path)
    for writer in (ledger, other):
        with pytest.raises(ValueError, match="already .*cloaked"):
            writer.append(cloaked("a"))
    (tmp_path / "a.jpg").unlink()
    other.append(cloaked("a", steps=7))
    assert ledger.rows()["a"].steps == 7


def test_a_line_torn_at_any_byte_is_dropped_and_repaired(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(Row(key="first", status="failed"))
    whole = ledger.path.read_bytes()
    ledger.append(Row(key="second", status="refused", reason="名前"))
    both = ledger.path.read_bytes()
    for end in range(len(whole), len(both)):
        ledger.path.write_bytes(both[:end])
        fresh = Ledger(tmp_path)
        assert list(fresh.rows()) == ["first"]
        assert ledger.path.read_bytes() == both[:end], "reading must not write"
        fresh.append(Row(key="third", status="failed"))
        assert ledger.path.read_bytes().startswith(whole + b'{"key": "third"')
        assert list(Ledger(tmp_path).rows()) == ["first", "third"] == list(fresh.rows())


def test_a_torn_first_line_and_a_long_torn_line_are_dropped(tmp_path):
    for torn in (b"{", b'{"key": "' + b"x" * 300_000):
        (tmp_path / MANIFEST).write_bytes(torn)
        assert Ledger(tmp_path).rows() == {}
        Ledger(tmp_path).append(Row(key="a", status="failed"))
        assert list(Ledger(tmp_path).rows()) == ["a"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(Row(key="a", status="failed"))
    with ledger.path.open("ab") as stream:
        stream.write(b'{"key": "b", "status": "failed", "sharpness": 1}\n')
    with pytest.raises(ValueError, match="manifest.jsonl, line 2: unknown column 'sharpness'"):
        Ledger(tmp_path).rows()


def test_settings_are_bound_once(tmp_path):
    folder = tmp_path / "out"
    Ledger(folder).open(SETTINGS)
    before = (folder / ".anti_i2v" / "settings.yaml").read_bytes()
    Ledger(folder).open(json.loads(json.dumps(SETTINGS)))
    assert Ledger(folder).settings() == SETTINGS
    assert (folder / ".anti_i2v" / "settings.yaml").read_bytes() == before


def test_other_settings_are_refused_field_by_field(tmp_path):
    Ledger(tmp_path).open(SETTINGS)
    Ledger(tmp_path).append(cloaked("a"))
    attack = {"steps": 200, "budget_8bit": 8, "step_8bit": 1.0, "transforms": ["jpeg"]}
    other = {"seed": 1, "surrogates": [], "attack": attack, "note": "(absent)", "gate": 2}
    with pytest.raises(ValueError) as caught:
        Ledger(tmp_path).open(other)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert "attack.budget_8bit: 16 there, 8 here" in lines
    assert "attack.transforms: [] there, (absent) here" in lines
    assert "attack.transforms[0]: (absent) there, 'jpeg' here" in lines
    assert "surrogates[0].name: 'embedded' there, (absent) here" in lines
    assert "note: None there, '(absent)' here" in lines
    assert "gate: (absent) there, 2 here" in lines
    assert not any("steps" in line or "seed" in line for line in lines)
    assert "--out" in lines[-1]


def test_limits_on_reading_and_places_of_caches_may_change(tmp_path):
    node = {"name": "cogvideox", "path": "p", "prompt_device": "cpu"}
    old = {"seed": 1, "surrogates": [{**node, "prompt_cache": "/a"}], "reading": {"limit": 200}}
    Ledger(tmp_path).open(old)
    Ledger(tmp_path).append(cloaked("a"))
    Ledger(tmp_path).open({**old, "reading": {"limit": 300}})
    Ledger(tmp_path).open({"seed": 1, "surrogates": [node]})
    with pytest.raises(ValueError, match=r"surrogates\[0\]\.prompt_device: 'cpu' there"):
        Ledger(tmp_path).open({"seed": 1, "surrogates": [{**node, "prompt_device": "cuda"}]})


@pytest.mark.parametrize("value", [1e-5, "1e-5", "no", "16", True, 1, "${x}", "名", -0.25, [[]]])
def test_settings_keep_their_types_through_yaml(tmp_path, value):
    Ledger(tmp_path).open({"a": {"b": value}})
    assert Ledger(tmp_path).settings() == {"a": {"b": value}}
    assert type(Ledger(tmp_path).settings()["a"]["b"]) is type(value)
    Ledger(tmp_path).open({"a": {"b": value}})


def test_settings_that_are_no_plain_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"settings\.a\[1\].*set"):
        Ledger(tmp_path).open({"a": [1, {2}]})


def test_rows_without_settings_are_refused(tmp_path):
    Ledger(tmp_path).append(Row(key="a", status="failed"))
    with pytest.raises(ValueError, match="settings.yaml is missing"):
        Ledger(tmp_path).open(SETTINGS)


def test_one_hundred_thousand_rows_are_scanned_quickly(tmp_path):
    for part in range(100):
        (tmp_path / f"{part:03d}").mkdir()
    lines = []
    for number in range(100_000):
        key = f"{number % 100:03d}/{number:06d}.jpg"
        lines.append(
            json.dumps(
                dict(key=key, status="cloaked", output=key, source=f"/photos/{key}",
                     source_sha256="0" * 64, output_sha256="1" * 64, surrogates=["embedded"],
                     config_sha256="2" * 64, seed=1, steps=200, budget_8bit=16, seconds=12.5,
                     loss_first=1.0, loss_last=0.2, psnr=33.1, ssim=0.93, ciede2000=1.9,
                     lpips=0.11, max_change_8bit=16, residual_kept=0.8, loss_kept=0.7)
            )
        )  # fmt: skip
        if number < 2000:
            (tmp_path / key).touch()
    (tmp_path / MANIFEST).write_text("\n".join(lines) + "\n")
    begin = time.process_time()
    assert all(json.loads(line)["status"] == "cloaked" for line in lines)
    parsed = time.process_time()
    finished = Ledger(tmp_path).finished()
    spent, parsing = time.process_time() - parsed, parsed - begin
    assert spent < 40 * parsing, "in proportion to parsing the lines, on any machine"
    assert len(finished) == 2000


def test_a_row_takes_little_memory_and_reads_back_from_the_file(tmp_path):
    filler = dict(source="/photos/" + "x" * 60, source_sha256="0" * 64, output_sha256="1" * 64)
    with (tmp_path / MANIFEST).open("wb") as stream:
        for number in range(5000):
            stream.write(encode_row(cloaked(f"{number:06d}", seconds=number / 8, **filler)))
    ledger = Ledger(tmp_path)
    tracemalloc.start()
    ledger.finished()
    held, _ = tracemalloc.get_traced_memory()
    rows = ledger.rows()
    peak_before = tracemalloc.get_traced_memory()[1]
    assert sum(row.seconds for row in rows.values()) == sum(range(5000)) / 8
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held / 5000 < 300, "bytes per row"
    assert peak <= peak_before + 100_000, "reading all rows holds one at a time"
    assert rows["004999"].source == filler["source"] and "5000" not in rows


def test_rows_are_those_of_the_moment_they_were_asked_for(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(Row(key="a", status="failed", reason="first"))
    before = ledger.rows()
    ledger.append(Row(key="a", status="failed", reason="second"))
    ledger.append(Row(key="b", status="failed"))
    assert list(before) == ["a"] and before["a"].reason == "first"
    assert ledger.rows()["a"].reason == "second"


def _append_many(folder, name):
    ledger = Ledger(folder)
    for number in range(100):
        ledger.append(Row(key=f"{name}-{number}", status="failed", reason="x" * (number * 50)))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_append_many, args=(tmp_path, n)) for n in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    rows = Ledger(tmp_path).rows()
    assert set(rows) == {f"{n}-{i}" for n in "abc" for i in range(100)}
    assert all(len(rows[f"b-{i}"].reason) == i * 50 for i in range(100))


def _cloak(folder):
    clean_temporaries(folder)
    ledger = Ledger(folder)
    ledger.open(SETTINGS)
    if "a" not in ledger.finished():
        write_whole(folder / "a.jpg", b"a" * 1000)
        ledger.append(cloaked("a", output_sha256=sha256_of(folder / "a.jpg")))


def test_killed_at_every_line_nothing_is_lost_and_no_row_lacks_its_file(tmp_path):
    line, kills = 1, 0
    while True:
        folder = tmp_path / str(line)
        folder.mkdir()
        killed = run_and_kill_at_line(lambda: _cloak(folder), line)  # noqa: B023
        kills += killed
        for row in Ledger(folder).rows().values():
            assert sha256_of(folder / row.output) == row.output_sha256
        outputs = {p.name: p.read_bytes() for p in folder.glob("*.jpg")}
        assert all(content == name[:1].encode() * 1000 for name, content in outputs.items())
        _cloak(folder)
        assert Ledger(folder).finished() == {"a"}
        assert len(Ledger(folder).path.read_bytes().splitlines()) == 1
        assert sorted(p.name for p in folder.iterdir()) == [
            ".anti_i2v", "a.jpg", MANIFEST
        ]  # fmt: skip
        if not killed:
            break
        line += 1
    assert kills > 60
