"""From an optimised canvas to a file that was written, read again, judged and put in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anti_i2v_lit.backbones.lpips_net import load_lpips
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.cloaking.gate import GateConfig
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.loop import CloakLoop, Judgement
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.framing import Framing
from anti_i2v_lit.data.photo import DecodedPhoto
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from anti_i2v_lit.data.writing import OutputConfig, write_photo
from anti_i2v_lit.metrics.imperceptibility import measure_change
from anti_i2v_lit.ops.jpeg import jpeg_saved
from anti_i2v_lit.ops.resize import resize


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a written file.

    Attributes:
        complaints: limits that it broke; empty if it was put in place.
        output: path relative to the output folder.
        sha256: digest of the written file.
        figures: psnr, ssim, ciede2000, lpips, max_change_8bit, loss_first, loss_last,
            residual_kept, loss_kept (None where the cloak gained nothing that could be kept).
        judgements: of the photo and of the cloak, surrogate by surrogate.
    """

    complaints: tuple[str, ...]
    output: str
    sha256: str
    figures: Mapping[str, float | None]
    judgements: tuple[Judgement, Judgement]


class Finisher:
    """Applies, writes, measures, verifies and publishes cloaks.

    Args:
        loop: judges loss on the written pixels.
        framing: carries residuals to full size.
        gate: limits of visibility.
        reading: limits for reading the file back.
        output: how files are written.
        out: folder of the cloaks.
        staging: folder on the same file system for files that are not judged yet.
        check: called with key and path just before a file is put in place; raises PhotoFailure
            if something that is not the photo's cloak lies there.
    """

    def __init__(
        self,
        *,
        loop: CloakLoop,
        framing: Framing,
        gate: GateConfig,
        reading: ReadingConfig,
        output: OutputConfig,
        out: Path,
        staging: Path,
        check: Callable[[str, Path], None],
    ) -> None:
        self.loop, self.framing, self.gate = loop, framing, gate
        self.reading, self.output = reading, output
        self.out, self.staging, self.check = out, staging, check
        self.lpips = load_lpips()

    @torch.no_grad()
    def apply(self, job: PhotoJob, photo: DecodedPhoto) -> DecodedPhoto:
        """Carry the canvas residual to full size and add it in the photo's own colour space."""
        residual = (self.loop.cloaked_canvas(job) - job.canvas)[0].cpu()
        full = self.framing.to_photo(residual, job.photo_size)
        return photo.changed(full, job.budget_8bit)

    @torch.no_grad()
    def finish(self, job: PhotoJob, photo: DecodedPhoto, name: str) -> Verdict:
        """Write the cloak, judge the written file, and put it in place if it passes.

        Args:
            job: with its steps taken.
            photo: as it was read.
            name: of the cloak, relative to the folder of cloaks.

        Raises:
            PhotoFailure: the cloak equals the photo, the written file cannot be read back or put
                in place, or memory is short.
        """
        try:
            with memory_errors():
                return self._judged(job, photo, name)
        except OSError as error:
            raise PhotoFailure(f"cannot write {name}: {error}") from error
        except MemoryError as error:
            raise PhotoFailure("not enough memory to write and judge this photo") from error

    def _judged(self, job: PhotoJob, photo: DecodedPhoto, name: str) -> Verdict:
        staged = self.staging / name
        try:
            try:
                with memory_errors():
                    sha256, figures, pictures = self._written(job, photo, staged, name)
            except (PhotoFailure, OSError, MemoryError):
                self.loop.judge_all(job, [])  # other ranks wait for the pictures
                raise
            judged = self.loop.judge_all(job, pictures)
            figures.update(_loss_figures(judged))
            complaints = self.gate.complaints(figures)
            if not complaints:
                self.check(job.key, self.out / name)
                publish(staged, self.out / name)
        finally:
            staged.unlink(missing_ok=True)
        return Verdict(
            complaints=tuple(complaints),
            output=name,
            sha256=sha256,
            figures=figures,
            judgements=(judged[0], judged[1]),
        )

    def _written(
        self, job: PhotoJob, photo: DecodedPhoto, staged: Path, name: str
    ) -> tuple[str, dict[str, float | None], list[Tensor]]:
        """Digest of the staged file, how visible it is, and canvases to be judged."""
        staged.parent.mkdir(parents=True, exist_ok=True)
        sha256 = write_photo(self.apply(job, photo), staged, self.output)
        written = read_photo(SourceFile(key=name, path=staged), self.reading)
        clean, cloak = photo.srgb(), written.srgb()
        if clean.shape != cloak.shape:
            raise PhotoFailure(
                f"the written file has {tuple(cloak.shape[-2:])} pixels, "
                f"the photo {tuple(clean.shape[-2:])}"
            )
        figures: dict[str, float | None] = {**measure_change(cloak, clean, self.lpips)}
        figures["max_change_8bit"] = written.max_change_8bit(photo)
        if figures["max_change_8bit"] == 0:
            raise PhotoFailure("the cloak equals the photo: nothing changed within the budget")
        clean_after, cloak_after = uploaded(clean), uploaded(cloak)
        figures["residual_kept"] = share_kept(cloak - clean, cloak_after - clean_after)
        images = (clean, cloak, clean_after, cloak_after)
        return sha256, figures, [self._canvas(job, image) for image in images]

    def _canvas(self, job: PhotoJob, image: Tensor) -> Tensor:
        height, width = job.canvas.shape[-2:]
        return resize(image[None], (height, width)).clamp(0, 1)


def _loss_figures(judged: Sequence[Judgement]) -> dict[str, float | None]:
    """Losses of the photo and the cloak, and the share of the difference left when uploaded."""
    before, after, clean_upload, cloak_upload = (judgement.total for judgement in judged)
    gained, kept = before - after, clean_upload - cloak_upload
    return {
        "loss_first": before,
        "loss_last": after,
        "loss_kept": kept / gained if gained > 0 else None,
    }


def uploaded(photo: Tensor) -> Tensor:
    """What a platform shows of a photo [3, H, W]: half size, JPEG quality 75 4:2:0, size again."""
    height, width = photo.shape[-2:]
    small = resize(photo[None], (max(8, height // 2), max(8, width // 2))).clamp(0, 1)
    return resize(jpeg_saved(small, 75, "4:2:0"), (height, width)).clamp(0, 1)[0]


def share_kept(residual: Tensor, after: Tensor) -> float:
    """Projection of the residual that is left on the original one; 1 = all kept."""
    energy = float((residual.double() ** 2).sum())
    return float((residual.double() * after.double()).sum()) / energy if energy > 0 else 0.0


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError where torch, which has other names for it, runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        on_cpu = "can't allocate memory" in str(error) or "not enough memory" in str(error)
        if on_cpu or isinstance(error, torch.OutOfMemoryError):
            raise MemoryError(str(error).splitlines()[0]) from error
        raise


def publish(staged: Path, final: Path) -> None:
    """Rename a complete, synced file to its final name and sync the folder.

    Raises:
        OSError: nothing is left under the final name, as the photo will get no row that names it.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(staged, final)
    try:
        descriptor = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        final.unlink(missing_ok=True)
        raise
