import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anti_i2v_lit.bench.purify import identities_named, purifications_named
from anti_i2v_lit.data.faces import Face
from anti_i2v_lit.data.folder import scan
from anti_i2v_lit.evaluation.judge import Judge
from anti_i2v_lit.evaluation.pairs import pair
from anti_i2v_lit.evaluation.run import Evaluation, Evaluator, Trials
from anti_i2v_lit.evaluation.store import ResultStore
from anti_i2v_lit.generators.cogvideox import CogVideoXGenerator
from anti_i2v_lit.purifications import PURIFICATIONS
from tests.evaluation.fakes import POINTS, FadingGenerator, fake_judge, write_noisy, write_photos


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    photos = write_photos(tmp_path / "photos", 3)
    write_noisy(photos, tmp_path / "small", 2)
    write_noisy(photos, tmp_path / "large", 20)
    return tmp_path


PLATFORM = {"name": "platform"}


def evaluate(
    folder: Path,
    generator=None,
    *,
    store="results",
    batch_size=2,
    seeds=(0, 1),
    steps=3,
    second=PLATFORM,
) -> Evaluation:
    evaluator = Evaluator(
        photos=scan([str(folder / "photos")], folder / "out").sources,
        generator=generator or FadingGenerator(),
        generator_identity={"steps": steps},
        judge=fake_judge(),
        purifications={"none": None, "platform": PURIFICATIONS.build(second)},
        purification_identities={"none": [], "platform": second},
        trials=Trials(seeds=list(seeds), batch_size=batch_size),
        store=ResultStore(folder / store),
    )
    return evaluator.run({"small": folder / "small", "large": folder / "large"})


def figures(found: Evaluation, column: str, **wanted: str) -> list[float]:
    return [
        r.figures[column]
        for r in found.results
        if all(getattr(r, name) == value for name, value in wanted.items())
    ]


def test_every_clip_is_judged_once_and_harder_changes_show_more(folders: Path) -> None:
    found = evaluate(folders)
    assert len(found.results) == 3 * 2 * 3 * 2  # photos, seeds, protections, purifications
    assert len({r.identity for r in found.results}) == len(found.results)
    for purification in ("none", "platform"):
        shifts = [
            np.mean(figures(found, "shift_own", protection=p, purification=purification))
            for p in ("clean", "small", "large")
        ]
        assert max(shifts[:2]) < shifts[2]
    assert all(v == 0 for v in figures(found, "shift_own", protection="clean", purification="none"))
    for name in ("photo0.png", "photo1.png"):
        photo, cloak = (
            np.asarray(Image.open(folders / f / name)).astype(int) for f in ("photos", "large")
        )
        largest = figures(found, "max_change_8bit", protection="large", photo=name)
        assert largest == [np.abs(cloak - photo).max()] * 4
    assert max(figures(found, "psnr", protection="large")) < min(
        figures(found, "psnr", protection="small")
    )
    assert all(math.isnan(v) for v in figures(found, "clip_psnr", protection="clean"))
    assert min(figures(found, "clip_psnr", protection="small", purification="none")) > max(
        figures(found, "clip_psnr", protection="large", purification="none")
    )


def test_clips_of_one_photo_share_their_seed_and_photos_do_not(folders: Path) -> None:
    generator = FadingGenerator()
    evaluate(folders, generator)
    assert len(set(generator.seeds)) == 3 * 2


def test_batches_change_nothing(folders: Path) -> None:
    one, many = (
        evaluate(folders, store="a", batch_size=1),
        evaluate(folders, store="b", batch_size=5),
    )
    for first, second in zip(one.results, many.results, strict=True):
        assert first.identity == second.identity
        assert dict(first.figures) == pytest.approx(dict(second.figures), abs=1e-6, nan_ok=True)


def test_a_killed_evaluation_goes_on_and_a_finished_one_does_nothing(folders: Path) -> None:
    whole = evaluate(folders, store="whole")
    killed = FadingGenerator()
    killed.stop_after = 9
    with pytest.raises(KeyboardInterrupt):
        evaluate(folders, killed)
    lines = folders / "results" / "results.jsonl"
    with lines.open("a") as file:
        file.write('{"photo": "torn')
    again = FadingGenerator()
    resumed = evaluate(folders, again)
    assert killed.clips_made + again.clips_made == len(whole.results)
    for first, second in zip(whole.results, resumed.results, strict=True):
        assert dict(first.figures) == pytest.approx(dict(second.figures), nan_ok=True)
    idle = FadingGenerator()
    assert len(evaluate(folders, idle).results) == len(resumed.results)
    assert idle.clips_made == 0


def test_changed_files_and_settings_are_judged_again(folders: Path) -> None:
    evaluate(folders)
    Image.fromarray(np.full((48, 48, 3), 90, np.uint8)).save(folders / "large" / "photo1.png")
    once = FadingGenerator()
    evaluate(folders, once)
    assert once.clips_made == 2 * 2  # one file, two seeds, two purifications
    other = FadingGenerator()
    evaluate(folders, other, steps=4)
    assert other.clips_made == 36


def test_another_purification_under_the_same_name_is_judged_again(folders: Path) -> None:
    evaluate(folders)
    other = FadingGenerator()
    evaluate(folders, other, second={"name": "jpeg"})
    assert other.clips_made == 18


class Corner:
    """Finds the black square that `cornered` draws."""

    def detect(self, photo: torch.Tensor) -> list[Face]:
        rows, columns = torch.where(photo.sum(0) < 0.3)
        if not len(rows):
            return []
        height, width = photo.shape[-2:]
        box = (columns.min() / width, rows.min() / height)
        far = ((columns.max() + 1) / width, (rows.max() + 1) / height)
        return [Face(box=(*map(float, box), *map(float, far)), score=1.0, landmarks=POINTS)]

    def detect_all(self, photos: torch.Tensor) -> list[list[Face]]:
        return [self.detect(photo) for photo in photos]


def test_face_crops_are_around_the_face_and_framed_by_it_again(tmp_path: Path) -> None:
    photo = np.full((48, 96, 3), 200, np.uint8)
    photo[16:26, 4:14] = 0
    for folder in ("photos", "ours"):
        (tmp_path / folder).mkdir()
        Image.fromarray(photo).save(tmp_path / folder / "a.png")
    judge = Judge(detector=Corner(), embedders={}, encoders={})
    names, seen = ["none", "face_crop"], []
    generator = FadingGenerator()
    inner = generator._generate

    def watched(photos, prompts, seeds):
        seen.extend(photos)
        return inner(photos, prompts, seeds)

    generator._generate = watched
    Evaluator(
        photos=scan([str(tmp_path / "photos")], tmp_path / "out").sources,
        generator=generator,
        generator_identity={},
        judge=judge,
        purifications=purifications_named(names, 24),
        purification_identities=identities_named(names, 24),
        trials=Trials(batch_size=1),
        store=ResultStore(tmp_path / "results"),
    ).run({"ours": tmp_path / "ours"})
    dark = [float((view.sum(0) < 0.3).float().mean()) for view in seen]
    # The square is on every picture, and the crop around it makes it larger.
    assert min(dark[:2]) > 0.02 and min(dark[2:]) > 2 * max(dark[:2]), dark


def test_refused_photos_are_reported_as_missing(folders: Path) -> None:
    (folders / "large" / "photo2.png").unlink()
    found = evaluate(folders)
    assert found.missing == {"small": (), "large": ("photo2.png",)}
    assert len(figures(found, "psnr", protection="large", purification="none")) == 4


def test_files_are_paired_by_key_added_png_or_other_suffix(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 3)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("photo0.png", "photo1.png.png", "photo2.jpg"):
        Image.new("RGB", (48, 48)).save(out / name)
    sources = scan([str(tmp_path / "photos")], out).sources
    names = {key: path.name for key, path in pair(sources, out).found.items()}
    assert names == {
        "photo0.png": "photo0.png",
        "photo1.png": "photo1.png.png",
        "photo2.png": "photo2.jpg",
    }
    Image.new("RGB", (48, 48)).save(out / "photo2.webp")
    with pytest.raises(ValueError, match="leave one"):
        pair(sources, out)
    with pytest.raises(ValueError, match="expected a folder"):
        pair(sources, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no protected file"):
        pair(sources, tmp_path / "empty")


def test_other_proportions_are_refused(folders: Path) -> None:
    Image.new("RGB", (48, 30)).save(folders / "small" / "photo0.png")
    with pytest.raises(ValueError, match="same proportions"):
        evaluate(folders)


def test_a_real_pipeline_is_judged(folders: Path) -> None:
    found = evaluate(folders, CogVideoXGenerator.tiny(), seeds=(0,))
    assert len(found.results) == 18
    changed = figures(found, "clip_psnr", protection="large", purification="none")
    assert all(0 < value < 80 for value in changed), changed
    assert torch.tensor(figures(found, "motion")).isfinite().all()
