import base64
import hashlib
import html
import html.parser
import math
import re
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from anti_i2v_lit.archive.files import sha256_of
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.report import html as report_html
from anti_i2v_lit.report.figures import FIGURES
from anti_i2v_lit.report.gathering import Gathered
from anti_i2v_lit.report.html import write_report

EVIL = "<script>alert('x')</script>&\"'.jpg"
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page, with a check that every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag, **wanted):
        return [
            a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())
        ]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def row(key, output, **changes):
    values = dict(
        key=key, status="cloaked", output=output, surrogates=("<b>model</b>",), seed=3, steps=200,
        config_sha256="c" * 64, budget_8bit=16, seconds=90.0, loss_first=1.25, loss_last=0.125,
        psnr=34.56, ssim=0.912, ciede2000=1.5, lpips=0.101, max_change_8bit=15.0,
        residual_kept=0.81, loss_kept=0.64, output_sha256="f" * 64,
    )  # fmt: skip
    return Row(**{**values, **changes})


@pytest.fixture
def folder(tmp_path):
    out, originals = tmp_path / "out", tmp_path / "in"
    out.mkdir()
    originals.mkdir()
    ledger = Ledger(out)
    ledger.open({"note": EVIL, "attack": {"budget_8bit": 16}})
    for name, pixels in (("astronaut.png", data.astronaut()), ("cat.png", data.chelsea())):
        Image.fromarray(pixels).save(originals / name)
        Image.fromarray(pixels ^ np.uint8(3)).save(out / name)
    source = originals / "astronaut.png"
    ledger.append(row(EVIL, "astronaut.png", source=str(source), source_sha256=sha256_of(source)))
    ledger.append(row("cat.png", "cat.png", source="/nowhere/cat.png", ciede2000=2.5, lpips=None))
    ledger.append(row("gone.jpg", "gone.jpg", psnr=math.inf, ciede2000=0.0, budget_8bit=8))
    ledger.append(Row(key="\udcff<i>.jpg", status="failed", reason=f"bad: {EVIL}"))
    ledger.append(Row(key="r1.gif", status="refused", reason="animated, 12 frames"))
    ledger.append(Row(key="r2.gif", status="refused", reason="animated, 3 frames"))
    return out


def test_the_page_says_what_was_done(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    for part in ("3 photos cloaked", "against <b>model</b>", "not a guarantee",
                 "8 to 16 grey levels", "2 refused animated, 12 frames", "r1.gif r2.gif",
                 f"1 failed bad: {EVIL}", "34.6 dB", "1.250", "0.125", "81 %", "15 levels",
                 "∞ dB", "the original is not there", "4 min 30 s", "f" * 64, "c" * 64,
                 sha256_of(folder / "manifest.jsonl"), "budget_8bit: 16"):  # fmt: skip
        assert part in page.text, part


def test_nothing_comes_from_outside_and_nothing_escapes(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1 and page.all("link") == [] and page.all("iframe") == []
    assert page.all("i") == []
    images = page.all("img")
    assert len(images) == 3 + 3 + 1
    assert all(i["src"].startswith("data:image/jpeg;base64,") and i["alt"] for i in images)
    assert all(i["loading"] == "lazy" for i in images)
    for attributes in page.all("a"):
        assert attributes["href"].startswith(("#", "./"))
    assert not re.search(r"https?://|@import|url\(", text)
    assert not any(name.startswith("on") for _, a in page.tags for name in a)


def test_the_policy_allows_exactly_the_script_of_the_page(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, flags=re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = Page(text).all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_the_table_can_be_sorted_by_true_numbers(folder):
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    numbers = [a.get("data-v") for a in page.all("td") if "data-v" in a]
    assert "34.56" in numbers and "inf" in numbers
    assert len(numbers) == 3 * len(FIGURES) - 1, "the missing LPIPS has none"


def test_links_to_outputs_are_relative_and_quoted(tmp_path):
    Ledger(tmp_path).append(row("a", "javascript:alert(1)/ä b?.jpg"))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    links = {a["href"] for a in page.all("a") if a["href"][0] == "."}
    assert links == {"./javascript%3Aalert%281%29/%C3%A4%20b%3F.jpg"}


def test_a_large_run_is_cut_and_says_so(tmp_path, monkeypatch):
    for name, value in (("WORST_SHOWN", 4), ("FIRST_SHOWN", 3), ("TABLE_ROWS", 8)):
        monkeypatch.setattr(report_html, name, value)
    ledger = Ledger(tmp_path)
    for number in range(12):
        ledger.append(row(f"{number:02d}.jpg", f"{number:02d}.jpg", ciede2000=float(number)))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert len(page.all("details", **{"class": "card"})) == 7
    assert "7 of 12 photos are shown: the 4 most visible" in page.text
    assert "The 8 most visible of 12" in page.text
    cards = [a["aria-label"] for a in page.all("div", role="img")][::3]
    order = [re.search(r"(\d\d)\.jpg", label)[1] for label in cards]
    assert order == ["11", "10", "09", "08", "00", "01", "02"]


def test_an_empty_folder_has_a_page(tmp_path):
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "No photo is cloaked" in page.text and "0 photos cloaked" in page.text


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        write_report(tmp_path / "nowhere")


def gathered(rows):
    return Gathered(rows, num_worst=50, num_first=10, keys_per_reason=20)


def test_many_rows_take_little_memory_and_none_is_forgotten():
    def rows(number):
        for i in range(number):
            key = f"{i * 7919 % number:06d}.jpg"  # every number once, in no order
            if i % 3:
                yield row(key, key, ciede2000=float(i % 1000), seconds=1.0)
            else:
                yield Row(key=key, status="failed", reason=f"disk {i} is full", seconds=1.0)

    sizes = []
    for number in (2000, 8000):
        tracemalloc.start()
        seen = gathered(rows(number))
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (sizes[1] - sizes[0]) / 6000 < 160, "bytes per further photo; a row takes ten times that"
    every = list(rows(8000))
    cloaked = [r for r in every if r.status == "cloaked"]
    assert seen.counts == {"cloaked": len(cloaked), "failed": 8000 - len(cloaked), "refused": 0}
    assert seen.worst == sorted(cloaked, key=lambda r: (-r.ciede2000, r.key))[:50]
    assert seen.first == sorted(cloaked, key=lambda r: r.key)[:10]
    assert seen.seconds == 8000 and seen.reasons[0].count == 8000 - len(cloaked)
    assert [len(group.keys) for group in seen.reasons] == [20]
    median = next(s.median for s in seen.spreads if s.name == "CIEDE2000")
    assert median == f"{np.median([r.ciede2000 for r in cloaked]):.2f}"


def test_spreads_leave_out_what_was_not_measured():
    rows = [
        row("a", "a", lpips=None),
        row("b", "b", lpips=0.3, psnr=30.0),
        row("c", "c", lpips=0.1),
    ]
    found = {s.name: s for s in gathered(rows).spreads}
    lpips = found["LPIPS"]
    assert (lpips.low, lpips.median, lpips.high, lpips.measured) == ("0.100", "0.200", "0.300", 2)
    assert found["PSNR"].low == "30.0" and found["PSNR"].median == "34.6"


def test_every_template_is_packaged():
    room = Path(report_html.__file__).parent
    templates = {p.name for p in room.glob("*.html")}
    assert templates == {"report.html", "style.html", "script.html"}
    project = (room.parents[1] / "pyproject.toml").read_text()
    assert '"**/*.html"' in project


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_sorting_and_finding_work_in_a_browser(folder, tmp_path):
    text = write_report(folder).read_text(encoding="utf-8")
    clicks = """<script>
      const heads = document.querySelectorAll("#files thead button");
      const names = () => Array.from(document.querySelectorAll("#files tbody tr:not([hidden]) th"),
        (cell) => cell.textContent.slice(0, 4)).join(" ");
      const log = [names()];
      for (const column of [1, 0, 0, 2, 4]) { heads[column].click(); log.push(names()); }
      const input = document.querySelector("#find input");
      input.value = "CAT"; input.dispatchEvent(new Event("input")); log.push(names());
      document.title = log.join("|");
    </script></body>"""
    open_policy = re.sub(r"script-src [^\"]*", "script-src 'unsafe-inline'", text)
    page = tmp_path / "clicked.html"
    page.write_text(open_policy.replace("</body>", clicks), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-quic", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=1000,
        check=True,
    )
    title = html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, flags=re.S)[1])
    assert title.split("|") == [
        "cat. <scr gone",  # as written: most visible first
        "gone <scr cat.",  # CIEDE2000 upwards
        "<scr cat. gone",  # by name
        "gone cat. <scr",  # by name, downwards
        "gone cat. <scr",  # PSNR downwards: infinite first, ties as they were
        "gone <scr cat.",  # LPIPS downwards: not measured last
        "cat.",
    ]
