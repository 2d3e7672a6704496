"""The stages of a training run: what each reads, what it writes, when it is done."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder
from anti_i2v_lit.surrogates.embedded.clips import (
    ClipOptions,
    ClipSource,
    encode_shards,
    latent_sample,
    load_shards,
)
from anti_i2v_lit.surrogates.embedded.faces import find_faces
from anti_i2v_lit.surrogates.embedded.family import Family, PictureEncoder
from anti_i2v_lit.surrogates.embedded.fitting import FitOptions, checkpoint_path, fit
from anti_i2v_lit.surrogates.embedded.lit_autoencoder import (
    AutoencoderTraining,
    LitAutoencoder,
    NormalizedAutoencoder,
)
from anti_i2v_lit.surrogates.embedded.lit_denoiser import DenoiserTraining, LitDenoiser
from anti_i2v_lit.surrogates.embedded.lit_picture_encoder import (
    LitPictureEncoder,
    PictureEncoderTraining,
)
from anti_i2v_lit.surrogates.embedded.perceptual import PerceptualDistance
from anti_i2v_lit.surrogates.embedded.photos import load_photos, load_video, training_videos
from anti_i2v_lit.surrogates.embedded.whitening import (
    Whitening,
    fold_shift_and_scale,
    fold_whitening,
    measure_whitening,
)

PHOTO_SIZE = 320  # side of a training portrait in memory, pixels
VIDEO_SIZE = 256  # side of a training video frame in memory, pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run is made from."""

    data: pathlib.Path  # data folder with photos/train, split.json, video and models
    out: pathlib.Path  # folder of this run
    family: Family  # the architecture
    autoencoder: AutoencoderTraining  # recipe of stage one
    picture_encoder: PictureEncoderTraining  # recipe of stage two, of families that have one
    denoiser: DenoiserTraining  # recipe of stage four
    clips: ClipOptions = dataclasses.field(default_factory=ClipOptions)  # stage three
    start_from: pathlib.Path | None = None  # a denoiser's checkpoint whose fitting weights begin
    accelerator: str = "auto"  # Lightning accelerator
    held_back: int = 24  # first so many training portraits kept out, to choose on
    whitening_images: int = 1500  # random crops that the covariance is measured on

    @property
    def device(self) -> torch.device:
        """Where encoding runs."""
        gpu = self.accelerator != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if gpu else "cpu")


def training_photos(run: Run) -> Tensor:
    """The portraits that are trained on, ``[N, 3, 320, 320]`` uint8."""
    return load_photos(run.data / "photos" / "train", size=PHOTO_SIZE)[run.held_back :]


def train_autoencoder(run: Run) -> None:
    """Stage one: ``autoencoder/last.ckpt``."""
    if _done(run, "autoencoder"):
        return
    videos = [load_video(path, size=VIDEO_SIZE) for path in training_videos(run.data)]
    module = LitAutoencoder(
        autoencoder=run.family.autoencoder(),
        training=run.autoencoder,
        photos=training_photos(run),
        frames=torch.cat([video[:75:5] for video in videos]),
        perceptual=PerceptualDistance(
            run.data / "models" / "lpips_alexnet_features_fp16.safetensors"
        ),
    )
    options = FitOptions(folder=run.out / "autoencoder", accelerator=run.accelerator)
    fit(module, schedule=run.autoencoder.schedule, options=options)
    _mark(run, "autoencoder", {"seconds": module.stopwatch.seconds(), "steps": module.global_step})


def train_picture_encoder(run: Run) -> None:
    """Stage two: ``picture-encoder/last.ckpt``; nothing where the family has no image encoder."""
    model = run.family.picture_encoder()
    if _done(run, "picture-encoder") or not list(model.parameters()):
        return
    module = LitPictureEncoder(
        model=model,
        training=run.picture_encoder,
        photos=training_photos(run),
        size=run.family.autoencoder().shape.sample_size,
    )
    options = FitOptions(folder=run.out / "picture-encoder", accelerator=run.accelerator)
    fit(module, schedule=run.picture_encoder.schedule, options=options)
    facts = {"seconds": module.stopwatch.seconds(), "steps": module.global_step}
    _mark(run, "picture-encoder", facts)


def trained_picture_encoder(run: Run) -> PictureEncoder:
    """The weight average of stage two, or the family's empty encoder."""
    model = run.family.picture_encoder()
    if list(model.parameters()):
        model.load_state_dict(_averaged(run, "picture-encoder"))
    return model.eval().requires_grad_(False)


def whiten(run: Run) -> tuple[PictureAutoencoder, Tensor]:
    """The averaged autoencoder of stage one, whitened, and the deviations before, ``[C]``."""
    model = averaged_autoencoder(run)
    path = run.out / "whitening.pt"
    if not path.exists():
        latents = latent_sample(
            model, training_photos(run), count=run.whitening_images, seed=1, device=run.device
        )
        torch.save(dataclasses.asdict(measure_whitening(latents)), path)
    whitening = Whitening(**torch.load(path, weights_only=True))
    model = model.cpu()
    fold_whitening(model, whitening)
    return model, whitening.deviations


def averaged_autoencoder(run: Run) -> PictureAutoencoder:
    """The weight average in the checkpoint of stage one, normalisation folded in."""
    model = NormalizedAutoencoder(run.family.autoencoder())
    model.load_state_dict(_averaged(run, "autoencoder"))
    fold_shift_and_scale(model.frames, model.statistics)
    return model.frames.eval()


def encode_clips(run: Run) -> None:
    """Stage three: ``clips/*.pt``."""
    if _done(run, "clips"):
        return
    photos = training_photos(run)
    paths = training_videos(run.data)
    # The speakers of the corpus talk all the time; the other clips also move.
    captions = [
        "the person talks" if "grid" in path.parent.name else "the person moves" for path in paths
    ]
    source = ClipSource(
        photos=photos,
        faces=find_faces(photos),
        videos=tuple(load_video(path, size=VIDEO_SIZE) for path in paths),
        video_captions=tuple(captions),
    )
    model, _ = whiten(run)
    encode_shards(
        model,
        trained_picture_encoder(run),
        source,
        run.out / "clips",
        options=run.clips,
        device=run.device,
    )
    _mark(run, "clips", {"count": run.clips.count})


def train_denoiser(run: Run) -> None:
    """Stage four: ``denoiser/last.ckpt``."""
    if _done(run, "denoiser"):
        return
    model = run.family.denoiser(run.denoiser.seed)
    if run.start_from is not None:
        shared = take_fitting(model, _average_of(run.start_from))
        print(f"{shared:.1%} of the denoiser's weights from {run.start_from}", flush=True)
    module = LitDenoiser(
        model=model,
        denoising=run.family.denoising(trained_picture_encoder(run)),
        training=run.denoiser,
        clips=load_shards(run.out / "clips", run.clips.count),
        deviations=whiten(run)[1],
    )
    options = FitOptions(folder=run.out / "denoiser", accelerator=run.accelerator)
    fit(module, schedule=run.denoiser.schedule, options=options)
    _mark(run, "denoiser", {"seconds": module.stopwatch.seconds(), "steps": module.global_step})


def export(run: Run, folder: pathlib.Path) -> int:
    """Stage five: the model's folder; the untrained denoiser where stage four has not begun."""
    denoiser = run.family.denoiser(run.denoiser.seed)
    if checkpoint_path(run.out / "denoiser").exists():
        denoiser.load_state_dict(_averaged(run, "denoiser"))
    return run.family.export(whiten(run)[0], trained_picture_encoder(run), denoiser.eval(), folder)


def take_fitting(model: nn.Module, weights: dict[str, Tensor]) -> float:
    """Take every weight of the same name and shape, and leave the others as they are.

    A denoiser that has more blocks than an earlier one goes on where that one was.

    Args:
        model: Changed in place.
        weights: Name -> tensor.

    Returns:
        Share of the model's numbers that were taken, in [0, 1].

    Raises:
        ValueError: Nothing fits.
    """
    own = model.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape
    }
    if not fitting:
        raise ValueError(
            f"{len(weights)} weights arrived of which none fits; expected the checkpoint of a "
            "denoiser of this family, start from another."
        )
    model.load_state_dict(fitting, strict=False)
    return sum(v.numel() for v in fitting.values()) / sum(v.numel() for v in own.values())


def _averaged(run: Run, stage: str) -> dict[str, Tensor]:
    """The weight average in the checkpoint of a stage."""
    return _average_of(checkpoint_path(run.out / stage))


def _average_of(path: pathlib.Path) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return _below(state, "average.model.")


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}


def _done(run: Run, stage: str) -> bool:
    return (run.out / f"{stage}.json").exists()


def _mark(run: Run, stage: str, facts: dict[str, Any]) -> None:
    (run.out / f"{stage}.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
