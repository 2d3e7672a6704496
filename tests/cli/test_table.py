"""`anti-i2v table` end to end on a tiny model, real files, and a second run that does nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from anti_i2v_lit.bench.lists import list_names, list_path
from anti_i2v_lit.bench.noise import sign_noise, write_noise
from anti_i2v_lit.bench.plan import (
    choose_photos,
    fingerprint,
    read_plan,
    variant_settings,
)
from anti_i2v_lit.bench.purify import rows_named
from anti_i2v_lit.cli.main import main
from anti_i2v_lit.data.folder import scan
from anti_i2v_lit.evaluation.columns import COLUMNS
from anti_i2v_lit.miniatures import tiny_cogvideox
from anti_i2v_lit.settings import load_settings
from tests.bench.test_first_frames import write_clip


def write_list(folder: Path, checkpoint: Path, **more: object) -> Path:
    values = {
        "reference": "rgb_pgd",
        "noise": True,
        "generator": {
            "name": "cogvideox",
            "path": str(checkpoint),
            "device": "cpu",
            "num_frames": 9,
        },
        "shared": {
            "surrogates": [{"name": "cogvideox", "path": str(checkpoint)}],
            "framing": {"canvas_side_px": 48},
            "gate": {"min_psnr_db": 0, "min_ssim": 0, "max_ciede2000": 0, "max_lpips": 0},
            "trainer": {"accelerator": "cpu"},
        },
        "variants": {
            "rgb_pgd": {"space": {"name": "rgb"}, "objectives": [{"name": "denoising"}]},
            "full": None,
        },
        **more,
    }
    path = folder / "list.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def small_photos(folder: Path, count: int = 3) -> Path:
    from skimage.data import astronaut

    folder.mkdir()
    for number in range(count):
        picture = np.roll(astronaut(), 40 * number, axis=1)
        Image.fromarray(picture).resize((96, 96)).save(folder / f"p{number}.png")
    return folder


@pytest.fixture
def words(tmp_path: Path, tiny_checkpoint: Path) -> list[str]:
    photos = small_photos(tmp_path / "photos")
    listed = write_list(tmp_path, tiny_checkpoint)
    return [
        "table", "protection", "--photos", str(photos), "--out", str(tmp_path / "out"),
        "--list", str(listed), "--count", "2", "--sampling-steps", "2",
        "--weights", str(tmp_path), "--seeds", "1", "attack.steps=3", "attack.num_draws=1",
        "attack.num_verification_draws=1",
    ]  # fmt: skip


def test_a_table_is_made_and_made_again_for_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert text in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    named = {(r["protection"], r["purification"]) for r in rows}
    assert named == {
        (p, q) for p in ("clean", "noise", "rgb_pgd", "full") for q in ("none", "platform")
    }
    assert all(r["photos"] == "2" for r in rows if r["column"] == "psnr")
    assert "absent" in text and "Paired difference to rgb_pgd" in text
    lines = (tmp_path / "out" / "results" / "results.jsonl").read_bytes()
    assert lines.count(b"\n") == 2 * 4 * 2
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "protected").rglob("*.png")}
    assert main(words) == 0
    assert (tmp_path / "out" / "results" / "results.jsonl").read_bytes() == lines
    assert (tmp_path / "out" / "table.md").read_text() == text
    again = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "protected").rglob("*.png")}
    assert again == stamps and len(stamps) == 3 * 2


def test_a_dry_run_counts_and_the_docs_get_the_brief(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clips as photos, three purifications, another generator than the list's."""
    write_clip(tmp_path / "clips" / "one.mp4", 40)
    write_clip(tmp_path / "clips" / "two.mp4", 120)
    checkpoint = yaml.safe_load((tmp_path / "list.yaml").read_text())["generator"]["path"]
    place = words.index("--photos")
    words = [*words[:place], *words[place + 2 :], "--purify", "none,blur,grey"]
    words += ["--clips", str(tmp_path / "clips")]
    words += ["--generator", f"cogvideox:{checkpoint},num_frames=9,device=cpu"]
    assert main([*words, "--dry-run"]) == 0
    # 2 rows x 2 photos x 3 steps; (clean and 3 rows) x 3 purifications x 2 photos.
    assert "3 rows; photo-steps 12 of 12, clips 24 of 24 still" in capsys.readouterr().out
    assert not (tmp_path / "out" / "protected").exists()
    page = tmp_path / "docs" / "page.md"
    assert main([*words, "--docs", str(page)]) == 0
    text = page.read_text()
    assert "# rgb_pgd against each other row" in text and "# After each purification" in text
    assert "Every figure" not in text and str(tmp_path / "clips") not in text
    assert page.with_suffix(".csv").read_text() == (tmp_path / "out" / "table.csv").read_text()
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    assert "photo-steps 0 of 12, clips 0 of 24 still" in capsys.readouterr().out


def test_a_transfer_table_sets_generators_beside_each_other(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """Each of two models alone and both as an ensemble, judged by each."""
    second = tmp_path / "second"
    tiny_cogvideox("1.5", seed=3).save_pretrained(second)
    models = {"one": tiny_checkpoint, "two": second}
    nodes = {n: {"name": "cogvideox", "path": str(path)} for n, path in models.items()}
    listed = write_list(
        tmp_path,
        tiny_checkpoint,
        generators={n: {**node, "device": "cpu", "num_frames": 9} for n, node in nodes.items()},
        variants={
            "rgb_pgd": {"space": {"name": "rgb"}, "objectives": [{"name": "denoising"}]},
            **{n: {"surrogates": [node]} for n, node in nodes.items()},
            "ensemble": {"surrogates": list(nodes.values())},
        },
    )
    photos = small_photos(tmp_path / "photos", 1)
    out = tmp_path / "out"
    assert main([
        "table", "transfer", "--photos", str(photos), "--out", str(out), "--list", str(listed),
        "--sampling-steps", "2", "--weights", str(tmp_path), "--purify", "none",
        "attack.steps=2", "attack.num_draws=1", "attack.num_verification_draws=1",
    ]) == 0  # fmt: skip
    rows = list(csv.DictReader((out / "table.csv").open()))
    protections = ("clean", "noise", "rgb_pgd", "one", "two", "ensemble")
    assert {(r["generator"], r["protection"]) for r in rows} == {
        (g, p) for g in models for p in protections
    }
    text = (out / "table.md").read_text()
    table = text.split("### LPIPS to clean clip")[1].split("###")[0]
    marked = {
        line.split("|")[1].strip(): tuple("*" in cell for cell in line.split("|")[2:4])
        for line in table.splitlines()
        if line.startswith("| ")
    }
    expected = {"noise": (False, False), "rgb_pgd": (True, False), "one": (True, False)}
    expected |= {"two": (False, True), "ensemble": (True, True)}
    assert {name: marked[name] for name in expected} == expected
    figures = {(r["generator"], r["protection"], r["column"]): r["mean"] for r in rows}
    assert f"{float(figures['two', 'one', 'clip_lpips']):.3f}" in table
    assert figures["one", "one", "psnr"] == figures["two", "one", "psnr"], "the same files"
    assert len(list((out / "protected").iterdir())) == 5


def test_what_training_gains_is_shown_after_what_was_drawn_and_what_was_not(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    space = {"space": {"name": "rgb"}, "objectives": [{"name": "denoising"}]}
    transforms = [{"name": "jpeg", "severity": 0.8}, {"name": "resize", "severity": 1.0}]
    listed = write_list(
        tmp_path,
        tiny_checkpoint,
        noise=False,
        reference="plain",
        variants={
            "plain": space,
            "trained": {**space, "attack": {"transforms": transforms, "transform_share": 1.0}},
        },
    )
    out = tmp_path / "out"
    assert main([
        "table", "trained", "--photos", str(small_photos(tmp_path / "photos", 2)),
        "--out", str(out), "--list", str(listed), "--sampling-steps", "1",
        "--weights", str(tmp_path), "--purify", "none,JPEG q75 4:2:0,WebP q50,blur 1.5 px",
        "attack.steps=3", "attack.num_draws=1", "attack.num_verification_draws=1",
    ]) == 0  # fmt: skip
    folders = sorted((out / "protected").iterdir())
    plain, trained = ((folder / "p0.png").read_bytes() for folder in folders)
    assert plain != trained, "the purifications were drawn"
    text = (out / "brief.md").read_text().split("# What trained gains")[1].split("\n# ")[0]
    order = [text.index(part) for part in (
        "of a kind that was not drawn", "| WebP q50 |", "| blur 1.5 px |", "worst of these",
        "were drawn while", "| JPEG q75 4:2:0 |", "file as it is", "| none |",
    )]  # fmt: skip
    assert order == sorted(order) and "Made of" not in text
    rows = csv.DictReader((out / "table.csv").open())
    (cell,) = [r["difference"] for r in rows if r["protection"] == "trained"
               and r["purification"] == "WebP q50" and r["column"] == "clip_lpips"]  # fmt: skip
    assert f"| WebP q50 | {float(cell):+.3f} [" in text


def test_other_settings_get_other_folders(words: list[str], tmp_path: Path) -> None:
    words = [*words, "--purify", "none", "--count", "1"]
    assert main(words) == 0
    assert main([*words, "attack.budget_8bit=8"]) == 0
    names = sorted(p.name.split("-")[0] for p in (tmp_path / "out" / "protected").iterdir())
    assert names == ["full", "full", "noise", "noise", "rgb_pgd", "rgb_pgd"]


def test_mistakes_are_named(words: list[str], tmp_path: Path, capsys) -> None:
    assert main([*words, "attack.stpes=3"]) == 1
    assert "variant rgb_pgd" in capsys.readouterr().err
    assert main([*words, "--list", str(tmp_path / "none.yaml")]) == 1
    assert "not a file" in capsys.readouterr().err
    assert main([*words, "--generator", "cogvideox"]) == 1
    assert "expected NAME:PATH" in capsys.readouterr().err
    assert main([*words, "--purify", "wash"]) == 1
    assert "unknown purification 'wash'" in capsys.readouterr().err


def test_noise_is_signs_at_the_budget_and_a_function_of_seed_and_key(tmp_path: Path) -> None:
    folder = small_photos(tmp_path / "photos", 2)
    photos = scan([str(folder)], tmp_path / "out").sources
    settings = load_settings(overrides=["framing.canvas_side_px=96", "attack.budget_8bit=6"])
    write_noise(photos, tmp_path / "out", settings, (32, 32))
    for photo in photos:
        before = np.asarray(Image.open(photo.path)).astype(int)
        after = np.asarray(Image.open(tmp_path / "out" / photo.key)).astype(int)
        inside = (before >= 6) & (before <= 249)
        assert set(np.unique((after - before)[inside])) == {-6, 6}
        assert abs((after - before)[inside].mean()) < 0.3
    first = sign_noise(0, "a", (8, 8), 6)
    assert first.equal(sign_noise(0, "a", (8, 8), 6))
    assert not first.equal(sign_noise(0, "b", (8, 8), 6))
    assert not first.equal(sign_noise(1, "a", (8, 8), 6))


def test_photos_are_spread_over_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        Image.new("RGB", (20, 20)).save(folder / f"{number}.png")
    chosen = choose_photos(folder, tmp_path / "out", 4)
    assert [photo.key for photo in chosen] == ["0.png", "2.png", "5.png", "7.png"]
    assert len(choose_photos(folder, tmp_path / "out", 0)) == 10
    assert len(choose_photos(folder, tmp_path / "out", 99)) == 10


def test_the_lists_are_package_data() -> None:
    assert {"main", "ladder", "budget", "num_steps", "robustness", "transfer", "defaults"} <= {
        *list_names()
    }
    with pytest.raises(ValueError, match="unknown table 'mein'; expected one of ablation, "):
        list_path("mein")


@pytest.mark.parametrize("name", list_names())
def test_shipped_lists_resolve_and_name_their_command(name: str) -> None:
    path = list_path(name)
    plan = read_plan(path)
    assert rows_named(plan.purifications)
    found = variant_settings(plan, [])
    digests = {n: s.digest() for n, s in found.items()}
    assert len(set(digests.values())) == len(digests) or name == "ablation"
    assert all(
        s.gate.complaints(
            dict.fromkeys(("psnr", "ssim"), -9.0)
            | dict.fromkeys(("ciede2000", "lpips", "max_change_8bit"), 99.0)
        )
        == []
        for s in found.values()
    )
    assert f"anti-i2v table {name} --photos DIR --out DIR" in path.read_text()
    assert plan.sort in {"", *COLUMNS}


def test_the_page_of_tables_names_every_list_and_baseline() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "tables.md").read_text()
    assert all(f"anti-i2v table {name}`" in page or f" {name} " in page for name in list_names())
    baselines = (root / "configs" / "cloak" / "baselines").glob("*.yaml")
    assert all(path.stem in page for path in baselines)


def test_wrong_lists_are_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="reference 'other' is none of noise, rgb_pgd, full"):
        read_plan(write_list(tmp_path, tiny_checkpoint, reference="other"))
    with pytest.raises(ValueError, match="Did you mean 'variants'"):
        read_plan(write_list(tmp_path, tiny_checkpoint, variant={}))
    with pytest.raises(ValueError, match="at least one name"):
        read_plan(write_list(tmp_path, tiny_checkpoint, variants={}))
    with pytest.raises(ValueError, match="purifications: expected at least one"):
        read_plan(write_list(tmp_path, tiny_checkpoint, purifications=[]))


def test_a_model_is_known_by_its_files(tiny_checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, copy)
    node = {"name": "cogvideox", "path": str(copy)}
    first = fingerprint(node)
    assert fingerprint(dict(node)) == first
    weights = next(copy.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(node) != first
