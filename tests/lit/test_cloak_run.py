"""The product end to end on a tiny checkpoint: files, rows, resuming, stopping, batches."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.lit import run as run_module
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.datamodule import PhotoDataModule, plan_groups
from anti_i2v_lit.lit.run import cloak, make_trainer
from anti_i2v_lit.lit.writer import CloakWriter
from anti_i2v_lit.settings import Settings, load_settings
from tests.conftest import fast_values, four_photos, pixels_of


def digests(folder: Path) -> dict[str, str]:
    return {
        key: hashlib.sha256((folder / row.output).read_bytes()).hexdigest()
        for key, row in Ledger(folder).rows().items()
        if row.status == "cloaked"
    }


@pytest.fixture(scope="module")
def undisturbed(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Photos as in `photo_folder`, and what a whole run with `fast_settings` made of them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    photos, out = four_photos(folder / "photos"), folder / "out"
    assert (
        cloak(load_settings(values=fast_values(tiny_checkpoint)), photos=[str(photos)], out=out)
        == 0
    )
    return photos, out


def test_cloaks_have_the_names_sizes_and_budget_of_the_photos(
    undisturbed: tuple[Path, Path],
) -> None:
    photo_folder, out = undisturbed
    rows = Ledger(out).rows()
    assert sorted(rows) == ["astronaut.png", "cat.jpg", "sub/coffee.png", "sub/turned.jpg"]
    for key, row in rows.items():
        before, after = pixels_of(photo_folder / key), pixels_of(out / row.output)
        assert before.shape == after.shape
        change = np.abs(before.astype(int) - after.astype(int)).max()
        assert 1 <= change <= (16 if key.endswith(".png") else 24)
        assert row.steps == 6
        assert row.loss_last is not None and row.loss_first is not None
        assert row.loss_last < row.loss_first
        assert row.output_sha256 == hashlib.sha256((out / row.output).read_bytes()).hexdigest()
    assert (out / "report.html").is_file()


def test_a_batch_equals_single_runs_and_order_does_not_matter(
    undisturbed: tuple[Path, Path], tmp_path: Path, tiny_checkpoint: Path, fast_settings: Settings
) -> None:
    photo_folder, single = undisturbed
    values = fast_values(tiny_checkpoint)
    batched = load_settings(values=values, overrides=["attack.batch_size=3"])
    cloak(batched, photos=[str(photo_folder)], out=tmp_path / "batched")
    for key, row in Ledger(tmp_path / "batched").rows().items():
        one = pixels_of(single / row.output).astype(int)
        many = pixels_of(tmp_path / "batched" / row.output).astype(int)
        # Float differences can flip a sign where the gradient is nearly zero.
        assert np.mean(one != many) < 0.02, key
    # The same photo alone in another folder, under the same key: the same bytes.
    alone = tmp_path / "alone"
    (alone / "sub").mkdir(parents=True)
    shutil.copy(photo_folder / "sub" / "coffee.png", alone / "sub" / "coffee.png")
    cloak(fast_settings, photos=[str(alone)], out=tmp_path / "alone_out")
    assert digests(tmp_path / "alone_out")["sub/coffee.png"] == digests(single)["sub/coffee.png"]


def test_ten_lines_of_python_give_the_bytes_of_the_command(
    undisturbed: tuple[Path, Path], photo_folder: Path, tmp_path: Path, fast_settings: Settings
) -> None:
    out = tmp_path / "program"
    module = CloakModule(fast_settings, out=out)
    data = PhotoDataModule(fast_settings, photos=[str(photo_folder)], out=out)
    trainer = make_trainer(fast_settings, out, [CloakWriter(fast_settings, out=out)])
    trainer.fit(module, datamodule=data)
    assert digests(out) == digests(undisturbed[1])
    assert len(digests(out)) == 4


def test_stopped_runs_continue_in_the_middle_and_end_with_the_same_bytes(
    undisturbed: tuple[Path, Path],
    photo_folder: Path,
    tmp_path: Path,
    fast_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "stopped"
    steps_taken: list[int] = []

    class Killed(RuntimeError):
        pass

    original = CloakModule.training_step

    def dies(self: CloakModule, group: object, batch_idx: int) -> object:
        if batch_idx == 3:
            raise Killed
        steps_taken.append(batch_idx)
        return original(self, group, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(CloakModule, "training_step", dies)
        for _ in range(5):
            with pytest.raises(Killed):
                cloak(fast_settings, photos=[str(photo_folder)], out=out)
    assert cloak(fast_settings, photos=[str(photo_folder)], out=out) == 0
    assert digests(out) == digests(undisturbed[1])
    # Three steps a life, saved every two: each life gains two steps, not zero.
    lines = (out / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == 4


def test_a_second_run_does_nothing_and_other_settings_are_refused(
    undisturbed: tuple[Path, Path], tmp_path: Path, fast_settings: Settings, tiny_checkpoint: Path
) -> None:
    photo_folder, finished = undisturbed
    out = shutil.copytree(finished, tmp_path / "out")
    before = (out / "manifest.jsonl").read_bytes()
    assert cloak(fast_settings, photos=[str(photo_folder)], out=out) == 0
    assert (out / "manifest.jsonl").read_bytes() == before
    other = load_settings(values=fast_values(tiny_checkpoint), overrides=["attack.budget_8bit=8"])
    with pytest.raises(ValueError, match=r"budget_8bit"):
        cloak(other, photos=[str(photo_folder)], out=out)


def test_bad_files_become_rows_and_the_rest_is_done(
    photo_folder: Path, tmp_path: Path, fast_settings: Settings
) -> None:
    (photo_folder / "empty.jpg").write_bytes(b"")
    whole = (photo_folder / "cat.jpg").read_bytes()
    (photo_folder / "torn.jpg").write_bytes(whole[: len(whole) // 2])
    (photo_folder / "wrong.png").write_bytes(whole)
    (photo_folder / "text.jpg").write_text("not a photo")
    out = tmp_path / "out"
    assert cloak(fast_settings, photos=[str(photo_folder)], out=out) == 2
    rows = Ledger(out).rows()
    failed = {key for key, row in rows.items() if row.status == "failed"}
    assert failed == {"empty.jpg", "torn.jpg", "wrong.png", "text.jpg"}
    assert all(rows[key].reason for key in failed)
    assert len(digests(out)) == 4


def test_a_photo_over_the_limit_is_tried_again_and_then_refused(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    values = fast_values(tiny_checkpoint)
    limits = ["gate.min_psnr_db=99", "gate.max_attempts=2", "gate.budget_factor=0.5"]
    out = tmp_path / "refused"
    settings = load_settings(values=values, overrides=limits)
    assert cloak(settings, photos=[str(photo_folder / "astronaut.png")], out=out) == 2
    row = Ledger(out).rows()["astronaut.png"]
    assert row.status == "refused" and "psnr" in row.reason
    assert row.budget_8bit == 8.0
    assert not (out / "astronaut.png").exists()
    # A limit between the two budgets is met on the second attempt.
    first = fast_settings_psnr(values, photo_folder, tmp_path)
    limits[0] = f"gate.min_psnr_db={first + 1.0}"
    settings = load_settings(values=values, overrides=limits)
    out = tmp_path / "second"
    assert cloak(settings, photos=[str(photo_folder / "astronaut.png")], out=out) == 0
    assert Ledger(out).rows()["astronaut.png"].budget_8bit == 8.0


def fast_settings_psnr(values: dict[str, object], photo_folder: Path, tmp_path: Path) -> float:
    settings = load_settings(values=values)
    cloak(settings, photos=[str(photo_folder / "astronaut.png")], out=tmp_path / "psnr")
    psnr = Ledger(tmp_path / "psnr").rows()["astronaut.png"].psnr
    assert psnr is not None
    return psnr


def test_checkpoints_hold_perturbations_and_no_surrogate(
    photo_folder: Path, tmp_path: Path, fast_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    saved = tmp_path / "trainer.ckpt"
    original = CloakModule.training_step

    def saves(self: CloakModule, group: object, batch_idx: int) -> object:
        result = original(self, group, batch_idx)  # type: ignore[arg-type]
        if batch_idx == 1:
            self.trainer.save_checkpoint(saved)
        return result

    monkeypatch.setattr(CloakModule, "training_step", saves)
    cloak(fast_settings, photos=[str(photo_folder / "astronaut.png")], out=out)
    state = torch.load(saved, weights_only=True)["state_dict"]
    assert state and all(name.startswith("perturbations.") for name in state)
    assert sum(v.numel() for v in state.values()) < 3 * 48 * 48 * 2


def test_a_non_finite_loss_fails_that_photo_with_key_and_step(
    photo_folder: Path, tmp_path: Path, fast_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anti_i2v_lit.objectives.denoising import DenoisingLoss

    original = DenoisingLoss._loss

    def breaks(self: DenoisingLoss, *observed: object) -> torch.Tensor:
        value = original(self, *observed)  # type: ignore[arg-type]
        return value * float("nan") if torch.is_grad_enabled() else value

    monkeypatch.setattr(DenoisingLoss, "_loss", breaks)
    out = tmp_path / "out"
    assert cloak(fast_settings, photos=[str(photo_folder / "astronaut.png")], out=out) == 2
    row = Ledger(out).rows()["astronaut.png"]
    assert row.status == "failed"
    assert "DenoisingLoss" in row.reason and "step 0" in row.reason


def test_a_stop_request_is_resumable(
    photo_folder: Path, tmp_path: Path, fast_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = CloakModule.training_step

    def stops(self: CloakModule, group: object, batch_idx: int) -> object:
        if batch_idx == 2:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, group, batch_idx)  # type: ignore[arg-type]

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(CloakModule, "training_step", stops)
        code = cloak(fast_settings, photos=[str(photo_folder)], out=out)
    assert code == run_module.EXIT_INTERRUPTED
    assert cloak(fast_settings, photos=[str(photo_folder)], out=out) == 0


def test_groups_are_cut_alike_whatever_is_finished() -> None:
    keys = [f"{i:02}" for i in range(10)]
    whole = plan_groups(keys, set(), [], 3)
    assert [len(g) for g in whole] == [3, 3, 3, 1]
    later = plan_groups(keys, set(keys[:4]), [tuple(keys[3:6])], 3)
    assert later == [tuple(keys[3:6]), tuple(keys[6:9]), tuple(keys[9:])]


def test_precision_that_would_round_the_perturbation_is_refused(tiny_checkpoint: Path) -> None:
    values = {**fast_values(tiny_checkpoint), "trainer": {"precision": "bf16-true"}}
    with pytest.raises(ValueError, match="dtype=bfloat16"):
        load_settings(values=values)


def test_settings_are_plain_json(fast_settings: Settings) -> None:
    assert json.loads(json.dumps(fast_settings.identity())) == fast_settings.identity()


def test_what_changes_no_byte_is_no_part_of_the_identity() -> None:
    words = ["reading.max_megapixels=300", "reading.memory_fraction=0.5"]
    words.append("surrogates.0.prompt_cache=/elsewhere")
    words.append("surrogates.0.activation_checkpointing=true")
    assert load_settings(overrides=words).identity() == load_settings().identity()
    assert load_settings(overrides=words).digest() == load_settings().digest()
    other = load_settings(overrides=["surrogates.0.prompt_device=cuda"])
    assert other.identity() != load_settings().identity()


def test_activations_that_are_computed_again_change_no_byte(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    found = []
    for on in ("false", "true"):
        words = ["attack.steps=3", f"surrogates.0.activation_checkpointing={on}"]
        settings = load_settings(values=fast_values(tiny_checkpoint), overrides=words)
        cloak(settings, photos=[str(photo_folder / "astronaut.png")], out=tmp_path / on)
        found.append(digests(tmp_path / on))
    assert found[0] == found[1] != {}


def test_a_folder_is_not_continued_with_other_weights(
    fast_settings: Settings, photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """Same path, other weights: half of the cloaks would be another model's."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, copy)
    settings = load_settings(values=fast_values(copy), overrides=["attack.steps=1"])
    photo, out = str(photo_folder / "astronaut.png"), tmp_path / "out"
    assert cloak(settings, photos=[photo], out=out) == 0
    weights = next((copy / "vae").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"models\[0\]"):
        cloak(settings, photos=[str(photo_folder)], out=out)
