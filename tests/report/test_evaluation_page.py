import base64
import dataclasses
import hashlib
import math
import re
import shutil
import subprocess

import pytest

from anti_i2v_lit.evaluation.facts import Problem
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.settings import ReportSettings
from anti_i2v_lit.report.evaluation import write_report

from .outcomes import SWAPPED, TOLD, make
from .pages import Page

EVIL = "<script>alert('x')</script>&\"'<img src=x onerror=alert(1)>.jpg"


def shown(value, digits):
    """A number as the page writes it, formatted here on its own."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def read(outcome, folder, **limits):
    path = write_report(outcome, folder, ReportSettings(**limits))
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An outcome with everything in it and its page."""
    folder = tmp_path_factory.mktemp("whole")
    outcome = make(folder, photos=4)
    return outcome, folder, read(outcome, folder)


def test_everything_by_name_is_on_the_page(whole):
    outcome, _, text = whole
    page = Page(text)
    named = [photo.key for photo in outcome.photos]
    named += [p.name for p in outcome.protections] + [g.label for g in outcome.generators]
    named += [p.label for p in outcome.purifications] + [c.title for c in outcome.columns]
    named += [*outcome.headline, *outcome.definition, *outcome.prompts]
    named += [g.model_sha256 for g in outcome.generators] + [p.sha256 for p in outcome.photos]
    named += [file.sha256 for photo in outcome.photos for file in photo.files]
    named += [verdict.reason for photo in outcome.photos for verdict in photo.verdicts]
    named += [part for metric in outcome.absent for part in (metric.name, metric.reason)]
    named += ["others: 32", "torch 2.15", "12 min 34 s", "No photo was swapped"]
    for name in named:
        assert name in page.text, name
    assert [name for name in outcome.files if f'href="./{name}"' not in text] == []


def test_the_title_is_one_bounded_sentence_with_the_numbers_of_the_verdicts(whole):
    outcome, _, text = whole
    overall = [v for p in outcome.photos for v in p.verdicts if not v.generator]
    words = [v.verdict for v in overall if v.protection == "ours"]
    kept, weakened = words.count("protected"), words.count("weakened")
    assert kept == 2 and weakened == 1
    title = re.search(r"<h1[^>]*>(.*?)</h1>", text)[1]
    assert title == (
        "ours: 2 of 4 photos stay protected after every one of 3 purifications, "
        "measured on the held-out video model unet; 1 more is weakened."
    )


def test_the_title_claims_nothing_where_a_purification_says_nothing(tmp_path):
    outcome = make(tmp_path, photos=4, protections=("ours",), clips=False)
    photo = outcome.photos[0]
    assert photo.verdicts[0].verdict == "protected"
    partly = [dataclasses.replace(v, protected_after=("none",)) for v in photo.verdicts]
    photos = (dataclasses.replace(photo, verdicts=tuple(partly)), *outcome.photos[1:])
    shown = "after every one of 3 purifications that leaves the person in the clean photo"
    assert shown not in read(outcome, tmp_path)
    outcome = dataclasses.replace(outcome, photos=photos)
    assert shown in read(outcome, tmp_path)
    alone = dataclasses.replace(outcome, purifications=outcome.purifications[:2])
    assert "after JPEG q75 4:2:0, where it leaves the person" in read(alone, tmp_path)


def test_photos_without_a_verdict_are_no_part_of_the_claim(tmp_path):
    outcome = make(tmp_path, photos=4, protections=("ours",), clips=False)
    unknown = [
        dataclasses.replace(p, verdicts=(dataclasses.replace(p.verdicts[0], verdict=word),))
        for p, word in zip(outcome.photos, ("not judged",) * 2 + ("not a cloak",) * 2, strict=True)
    ]
    text = read(dataclasses.replace(outcome, photos=tuple(unknown)), tmp_path)
    assert "0 of 4 photos stay protected" in text and "; 2 not a cloak; 2 not judged." in text
    none = [
        dataclasses.replace(p, verdicts=(dataclasses.replace(p.verdicts[0], verdict="not judged"),))
        for p in outcome.photos
    ]
    text = read(dataclasses.replace(outcome, photos=tuple(none)), tmp_path)
    assert "Nothing was judged to the end" in text and "stay protected" not in text


def test_numbers_of_the_summary_are_those_of_the_outcome(whole):
    outcome, _, text = whole
    page, digits = Page(text), {c.name: c.digits for c in outcome.columns}
    for row in outcome.summary:
        for name, estimate in row.estimates.items():
            parts = [row.generator, row.purification, row.protection]
            for figure in (estimate, row.to_clean.get(name), row.to_noise.get(name)):
                if figure is not None:
                    parts += [shown(v, digits[name]) for v in (figure.mean, figure.low)]
                    parts += [shown(figure.high, digits[name])]
            parts.append("4 photos × 2 prompts × 3 seeds")
            assert page.has_row(*parts), parts


def test_numbers_of_worst_cases_heat_map_and_curves_are_those_of_the_outcome(whole):
    outcome, _, text = whole
    page = Page(text)
    for case in (w for w in outcome.worst if w.tier != "quick"):
        share, value = case.share_protected, case.estimates["dlib_mean_zero"]
        parts = [case.protection, case.generator, case.knowledge, f"{100 * share.mean:.0f} %"]
        parts += [f"{100 * share.low:.0f} to {100 * share.high:.0f} %"]
        parts += [shown(value.mean, 3), shown(value.low, 3), shown(value.high, 3)]
        parts += [shown(case.clean["dlib_mean_zero"].mean, 3), "24 clips"]
        assert page.has_row(*parts), parts
    for cell in outcome.heat:
        parts = [cell.purification, f"{100 * cell.share_protected.mean:.0f} %"]
        assert page.has_row(*parts, shown(cell.value.mean, 2)), parts
        parts = [cell.purification, cell.protection, f"{100 * cell.share_protected.mean:.0f} %"]
        parts += [shown(e.mean, 3) for e in (cell.value, cell.clean, cell.noise)]
        assert page.has_row(*parts), parts
    for curve in (c for c in outcome.curves if not c.protection.startswith("noise")):
        for index, point in enumerate(curve.points):
            values = [shown(v, 3) for v in (point.mean, point.low, point.high)]
            assert page.has_row(str(index + 1), *values), (curve, index)


def test_the_photos_behind_a_number_are_those_of_that_number(tmp_path):
    outcome = make(tmp_path, photos=9, protections=("ours",), clips=False)

    def counted(part, values):
        return dataclasses.replace(
            part,
            share_protected=dataclasses.replace(part.share_protected, count=3),
            share_changed=dataclasses.replace(part.share_changed, count=4),
            **values,
        )

    worst = outcome.worst[0]
    figure = {n: dataclasses.replace(e, count=5) for n, e in worst.estimates.items()}
    plain = {n: dataclasses.replace(e, count=6) for n, e in worst.clean.items()}
    case = counted(worst, {"estimates": figure, "clean": plain})
    cell = outcome.heat[0]
    values = {n: dataclasses.replace(getattr(cell, n), count=c)
              for n, c in (("value", 5), ("clean", 6), ("noise", 7))}  # fmt: skip
    field = counted(cell, values)
    text = read(dataclasses.replace(outcome, worst=(case,), heat=(field,)), tmp_path)
    page = Page(text)
    assert page.has_row("ours", *(f"{n} photos" for n in (3, 4, 5, 6)), "2 prompts × 3 seeds")
    assert page.has_row(cell.purification, *(f"{n} photos" for n in (3, 4, 5, 6, 7)))
    assert not page.has_row(cell.purification, "9 photos × 2 prompts", "7 photos")


def test_held_out_models_come_first_and_white_box_is_marked(whole):
    outcome, _, text = whole
    page = Page(text)
    maps = [row.strip() for row in page.rows if "held-out" in row or "white-box" in row]
    assert maps
    heads = re.findall(r'<h3>(unet|mmdit) <span class="know (held|white)">', text)
    assert heads == [("unet", "held"), ("mmdit", "white")]
    assert "White-box marks a model that took part" in page.text


def test_a_protection_of_unknown_making_is_never_called_held_out(tmp_path):
    outcome = make(tmp_path, photos=3, protections=("peer",), clips=False)
    told = [dataclasses.replace(p, told_by="", surrogates=()) for p in outcome.protections]
    white = {g.label: "white-box" for g in outcome.generators[-1:]}
    white_box = tuple(white)

    def unknown(part):
        return dataclasses.replace(part, knowledge=white.get(part.generator, "unknown"))

    photos = [
        dataclasses.replace(p, verdicts=tuple(map(unknown, p.verdicts))) for p in outcome.photos
    ]
    outcome = dataclasses.replace(
        outcome,
        protections=tuple(dataclasses.replace(p, white_box=white_box) for p in told),
        photos=tuple(photos),
        **{n: tuple(map(unknown, getattr(outcome, n))) for n in ("worst", "heat")},
        summary=tuple(unknown(r) if r.knowledge else r for r in outcome.summary),
    )
    text = read(outcome, tmp_path)
    page = Page(text)
    assert "measured on the video model unet; nobody says which models computed" in page.text
    assert "a white-box result cannot be excluded" in page.text
    assert '<span class="know">unknown if white-box</span>' in text
    assert 'class="know held"' not in text
    assert "no model can be called held-out there" in page.text


def test_nothing_is_fetched_and_nothing_runs_but_the_script_of_the_page(whole):
    _, _, text = whole
    page = Page(text)
    assert len(page.all("script")) == 1 and page.all("link") == [] and page.all("iframe") == []
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert re.match(r"data:image/|#|\./", attributes.get(name) or "#"), attributes[name]
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?://|@import|url\(", text)
    script = re.search(r"<script>(.*?)</script>", text, flags=re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert all(image["alt"] for image in page.all("img"))
    assert all(drawing["aria-label"] for drawing in page.all("svg", **{"class": "chart"}))


def test_clips_stand_one_over_the_other(whole):
    outcome, _, text = whole
    page = Page(text)
    strips = page.all("img", **{"class": "strip"})
    assert len(strips) == len(outcome.clips) == 4 * 2 * 3
    assert {strip["data-frames"] for strip in strips} == {"8"}
    assert [strip["data-name"] for strip in strips[:3]] == ["Photo’s clip", "ours", "RGB-PGD"]


def test_problems_are_on_top(tmp_path):
    outcome = make(tmp_path, photos=1, problems=(TOLD, SWAPPED), clips=False, complete=False)
    text = read(outcome, tmp_path)
    page = Page(text)
    assert '<h1 class="sentence">This evaluation fails: 1 problem with the files' in text
    where = [text.index(part) for part in ("<h1", "1 swapped", "1 missing", 'id="result"')]
    assert where == sorted(where), "what fails comes before what is told, both before the result"
    for part in (SWAPPED.photo, SWAPPED.reason, TOLD.reason, "is not complete"):
        assert part in page.text, part
    assert "No photo was swapped" not in page.text


def test_hostile_names_are_text(tmp_path):
    outcome = make(
        tmp_path, protections=(EVIL,), generators=(EVIL + "g",), keys=[EVIL, "\udcff<i>.jpg"],
        purifications=("none", EVIL + "p"),
        problems=(Problem(kind="failed", protection=EVIL, photo=EVIL, reason=EVIL),),
    )  # fmt: skip
    outcome = dataclasses.replace(outcome, files=("javascript:alert(1)",))
    text = read(outcome, tmp_path)
    page = Page(text)
    assert len(page.all("script")) == 1 and page.all("img", src="x") == []
    assert "<script>alert" not in text and "<i>.jpg" not in text
    assert EVIL in page.text and "\\udcff<i>.jpg" in page.text
    assert 'href="./javascript%3Aalert%281%29"' in text


def test_the_same_outcome_gives_the_same_bytes(whole):
    outcome, folder, text = whole
    assert read(outcome, folder) == text


def test_a_large_evaluation_is_cut_and_says_so(tmp_path):
    outcome = make(tmp_path, photos=9, protections=("ours",), generators=("unet",), frames=6)
    limits = dict(photos=3, frames=4, charts=1, table_rows=5, metric_rows=2, problems=1)
    outcome = dataclasses.replace(outcome, problems=(SWAPPED, SWAPPED))
    page = Page(read(outcome, tmp_path, **limits))
    cards = page.all("article")
    assert len(cards) == 3
    for part in ("3 of 9 photos are shown: the worst, the middle and the best ones",
                 "4 of 6 frames", "1 of 4 charts", "The 5 most alarming of 9",
                 "The first 2 of 12 rows", "and 1 more in outcome.json",
                 "The first 5 photos"):  # fmt: skip
        assert part in page.text, part
    strips = page.all("img", **{"class": "strip"})
    assert {strip["data-frames"] for strip in strips} == {"4"}


def test_the_clips_stay_under_their_size(tmp_path):
    outcome = make(tmp_path, photos=4, protections=("ours",), generators=("unet",))
    full = read(outcome, tmp_path)
    size = sum(len(uri) for uri in re.findall(r"data:image/webp[^\"]*", full))
    text = read(outcome, tmp_path, clip_megabytes=0.6 * size / 1e6)
    left = sum(len(uri) for uri in re.findall(r"data:image/webp[^\"]*", text))
    assert 0 < left <= 0.6 * size
    assert "2 of 4 kept comparisons of these photos are embedded" in Page(text).text


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (dict(clips=False), ["No clips were kept"]),
        (dict(faces=False), ["No face was found in 1 of 1 photo"]),
        (dict(purifications=("none",)), ["as long as the file is left as it is"]),
        (dict(generators=("unet",)), ["1 video model"]),
    ],
)
def test_what_is_not_there_is_said(tmp_path, options, parts):
    given = dict(photos=1, protections=("ours",), generators=("unet", "mmdit"), frames=2)
    page = Page(read(make(tmp_path, **{**given, **options}), tmp_path))
    for part in [*parts, "one photo"]:
        assert part in page.text, part


def test_an_empty_outcome_has_a_page(tmp_path):
    page = Page(read(Outcome(), tmp_path))
    for part in (
        "Nothing was judged to the end",
        "No photo was judged",
        "No purification was judged",
    ):
        assert part in page.text
    assert page.all("img") == [] and "No photo was swapped" not in page.text


def test_unreadable_files_leave_a_text(tmp_path):
    outcome = make(tmp_path, photos=1, protections=("ours",), generators=("unet",), frames=2)
    (tmp_path / "cloak0_0.png").unlink()
    (tmp_path / outcome.clips[0].path).write_bytes(b"damaged")
    (tmp_path / outcome.clips[1].path).unlink()
    page = Page(read(outcome, tmp_path))
    assert page.text.count("the clip cannot be shown") == 2
    assert "cloak0_0.png is not there" in page.text


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="not a folder"):
        write_report(Outcome(), tmp_path / "nowhere")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_the_player_works_in_a_browser(whole, tmp_path):
    """The slider shows the wanted frame of both clips: compared with the strip's own pixels."""
    _, _, text = whole
    check = """<script>addEventListener("load", async () => {
      const films = document.querySelector(".films");
      const strips = [...films.querySelectorAll("img.strip")];
      // Loading holds Chromium's virtual clock; decode(), on a thread of its own, does not.
      await Promise.all(strips.map((strip) => new Promise((done) => {
        strip.addEventListener("load", done);
        strip.loading = "eager";
        if (strip.complete && strip.naturalWidth) done();
      })));
      const slider = films.querySelector("input[type=range]");
      slider.value = 6;
      slider.dispatchEvent(new Event("input"));
      const equal = [...films.querySelectorAll("canvas")].map((canvas, i) => {
        const other = document.createElement("canvas");
        other.width = canvas.width; other.height = canvas.height;
        other.getContext("2d").drawImage(strips[i], -5 * canvas.width, 0);
        return canvas.toDataURL() === other.toDataURL();
      });
      const W = document.documentElement;
      document.title = [films.querySelector("output").textContent, equal.join(),
        W.scrollWidth <= W.clientWidth].join("|");
    });</script></body>"""
    open_policy = re.sub(r"script-src [^\"]*", "script-src 'unsafe-inline'", text)
    page = tmp_path / "clicked.html"
    page.write_text(open_policy.replace("</body>", check), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--virtual-time-budget=60000", "--dump-dom"]
    done = subprocess.run(
        ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True, text=True, timeout=1000, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, flags=re.S)[1]
    assert title == "frame 6 of 8|true,true,true|true"
