"""The command line: verbs, exit codes, words in any order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anti_i2v_lit.cli.cloak_verb import split_words
from anti_i2v_lit.cli.main import VERBS, build_parser, main


def overrides(checkpoint: Path) -> list[str]:
    return [
        f"surrogates.0.path={checkpoint}",
        "attack.steps=2",
        "attack.num_draws=1",
        "framing.canvas_side_px=48",
        "gate.min_psnr_db=0",
        "gate.min_ssim=0",
        "gate.max_ciede2000=0",
        "gate.max_lpips=0",
        "trainer.accelerator=cpu",
    ]


def test_cloak_plan_status_verify_and_a_swapped_file(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [str(photo_folder), "--out", str(out), *overrides(tiny_checkpoint)]
    assert main(["plan", *words, "--trial-steps", "1"]) == 0
    assert "to cloak   4" in capsys.readouterr().out
    assert not out.exists()
    assert main(["cloak", *words]) == 0
    assert "4 cloaked" in capsys.readouterr().out
    assert main(["status", str(out)]) == 0
    assert "4 cloaked" in capsys.readouterr().out
    assert main(["verify", str(out)]) == 0
    assert main(["plan", *words, "--trial-steps", "0"]) == 0
    assert "done       4" in capsys.readouterr().out
    shutil.copy(photo_folder / "astronaut.png", out / "astronaut.png")
    assert main(["verify", str(out)]) == 2
    assert "astronaut.png" in capsys.readouterr().out


def test_exit_codes(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = overrides(tiny_checkpoint)
    (photo_folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert main(["cloak", str(photo_folder), "--out", str(tmp_path / "out"), *words]) == 2
    assert main(["cloak", str(photo_folder), "--out", str(photo_folder / "x"), *words]) == 1
    assert "anti-i2v cloak:" in capsys.readouterr().err
    assert main(["cloak", str(tmp_path / "absent"), "--out", str(tmp_path / "o")]) == 1
    assert main(["cloack"]) == 1
    assert main(["status"]) == 1
    assert main(["status", str(tmp_path / "absent")]) == 1
    assert main(["--version"]) == 0


def test_originals_are_not_touched(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in photo_folder.rglob("*.*")}
    main(["cloak", str(photo_folder), "--out", str(tmp_path / "out"), *overrides(tiny_checkpoint)])
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in photo_folder.rglob("*.*")} == before


def test_overrides_and_photos_are_told_apart(tmp_path: Path) -> None:
    photo = tmp_path / "a=b.jpg"
    photo.write_bytes(b"x")
    words = [str(photo), "attack.steps=3", "objectives.0.weight=2", "C=1.jpg"]
    assert split_words(words) == ([str(photo), "C=1.jpg"], words[1:3])


def test_list_names_everything_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for word in ("cogvideox", "dual", "irc", "platform"):
        assert word in shown
    for line in shown.splitlines():
        assert not line.startswith("  ") or len(line.split()) > 2, line


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    build_parser(verb)
    assert main([verb, "--help"]) == 0
    assert "usage: anti-i2v " + verb in capsys.readouterr().out


def test_doctor_finds_a_working_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "FAILED" not in shown and "MISSING" not in shown
    assert "embedded model loaded" in shown
