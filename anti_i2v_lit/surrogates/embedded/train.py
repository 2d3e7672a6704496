"""Train an embedded model: autoencoder, image encoder, encoded clips, denoiser, export.

``python -m anti_i2v_lit.surrogates.embedded.train --data ../shared/data --out runs/embedded``
trains a video transformer of CogVideoX's class; with ``--model unet`` a video U-Net of
DynamiCrafter's, which alone has an image encoder.

Every stage writes its result under ``--out`` and is skipped once that is complete, so the same
command continues after an interruption.
"""

from __future__ import annotations

import argparse
import pathlib

import torch

from anti_i2v_lit.surrogates.embedded import stages
from anti_i2v_lit.surrogates.embedded.clips import ClipOptions
from anti_i2v_lit.surrogates.embedded.family import Family
from anti_i2v_lit.surrogates.embedded.lit_autoencoder import AutoencoderTraining
from anti_i2v_lit.surrogates.embedded.lit_denoiser import DenoiserTraining
from anti_i2v_lit.surrogates.embedded.lit_picture_encoder import PictureEncoderTraining
from anti_i2v_lit.surrogates.embedded.mmdit_family import TransformerFamily
from anti_i2v_lit.surrogates.embedded.schedule import Schedule
from anti_i2v_lit.surrogates.embedded.unet_denoiser import Withholding
from anti_i2v_lit.surrogates.embedded.unet_family import UNetFamily

STAGES = ("autoencoder", "picture-encoder", "clips", "denoiser", "export")
FAMILIES = ("mmdit", "unet")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parse.add_argument
    add("--model", choices=FAMILIES, default="mmdit", help="architecture")
    add("--data", type=pathlib.Path, required=True, help="folder with photos/train and split.json")
    add("--out", type=pathlib.Path, required=True, help="folder of this run")
    add("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="stages to run")
    add("--export-to", type=pathlib.Path, help="pipeline folder; the default is OUT/pipeline")
    add("--autoencoder-minutes", type=float, help="wall clock of stage one; default no limit")
    add("--autoencoder-steps", type=int, default=6000, help="most steps of stage one")
    add("--autoencoder-rate", type=float, default=1.5e-3, help="peak learning rate of stage one")
    add("--picture-encoder-steps", type=int, default=2000, help="steps of stage two")
    add("--clips", type=int, default=6000, help="clips of stage three")
    add("--denoiser-minutes", type=float, help="wall clock of stage four; default no limit")
    add("--denoiser-steps", type=int, default=20000, help="most steps of stage four")
    add("--withhold-latent", type=float, help="unet: share of clips without the photo's latent")
    add(
        "--start-from",
        type=pathlib.Path,
        help="denoiser/last.ckpt of another run; stage four begins with its weights that fit",
    )
    add(
        "--portraits-every",
        type=int,
        default=0,
        help="unet: steps from one on single frames that "
        "only image tokens describe to the next; 0: none",
    )
    add("--batch-size", type=int, default=8, help="pictures and clips a step")
    add("--seed", type=int, default=0, help="seed of everything drawn")
    add("--accelerator", default="auto", help="auto, cpu or gpu")
    add("--threads", type=int, default=0, help="CPU threads; 0 leaves the default")
    return parse


def build_family(arguments: argparse.Namespace) -> Family:
    """The architecture that a command line asks for.

    Raises:
        ValueError: An option that the architecture does not know.
    """
    share = arguments.withhold_latent
    if arguments.model == "unet":
        return UNetFamily(withholding=Withholding() if share is None else Withholding(latent=share))
    if share is not None or arguments.portraits_every:
        raise ValueError(
            f"--withhold-latent {share} and --portraits-every {arguments.portraits_every} arrived "
            f"with --model {arguments.model}; expected them with --model unet alone, whose photo "
            "has a second way in; leave them out."
        )
    return TransformerFamily()


def build_run(arguments: argparse.Namespace) -> stages.Run:
    """The run that a command line asks for."""
    return stages.Run(
        data=arguments.data,
        out=arguments.out,
        family=build_family(arguments),
        start_from=arguments.start_from,
        accelerator=arguments.accelerator,
        autoencoder=AutoencoderTraining(
            schedule=Schedule(
                max_steps=arguments.autoencoder_steps,
                max_minutes=arguments.autoencoder_minutes,
                peak_rate=arguments.autoencoder_rate,
                warmup_steps=150,
            ),
            batch_size=arguments.batch_size,
            seed=arguments.seed,
        ),
        picture_encoder=PictureEncoderTraining(
            schedule=Schedule(max_steps=arguments.picture_encoder_steps, warmup_steps=50),
            seed=arguments.seed,
        ),
        denoiser=DenoiserTraining(
            schedule=Schedule(
                max_steps=arguments.denoiser_steps, max_minutes=arguments.denoiser_minutes
            ),
            batch_size=arguments.batch_size,
            portraits_every=arguments.portraits_every,
            seed=arguments.seed,
        ),
        clips=ClipOptions(count=arguments.clips, seed=arguments.seed),
    )


def main(argv: list[str] | None = None) -> None:
    """Run the stages that are asked for and not done."""
    arguments = parser().parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    run = build_run(arguments)
    if "autoencoder" in arguments.stages:
        stages.train_autoencoder(run)
    if "picture-encoder" in arguments.stages:
        stages.train_picture_encoder(run)
    if "clips" in arguments.stages:
        stages.encode_clips(run)
    if "denoiser" in arguments.stages:
        stages.train_denoiser(run)
    if "export" in arguments.stages:
        folder = arguments.export_to or arguments.out / "pipeline"
        print(f"{stages.export(run, folder)} bytes in {folder}", flush=True)


if __name__ == "__main__":
    main()
