"""`anti-i2v demo [--out DIR]`: cloak the bundled portrait and show both clips."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "overrides", nargs="*", metavar="section.field=value", help="settings of the cloak"
    )
    parser.add_argument("--out", type=Path, default=Path("anti-i2v-demo"), help="folder")
    parser.add_argument("--steps", type=int, help="sign steps (default: the settings')")
    parser.add_argument("--sampling-steps", type=int, default=25, help="denoising steps per clip")
    parser.add_argument(
        "--generator", default="embedded", help="'embedded' or a local CogVideoX folder"
    )
    parser.add_argument("--frames", type=int, default=0, help="of a clip; 0: the model's own")


def run(arguments: argparse.Namespace) -> int:
    """Make the demo and print what was seen."""
    from anti_i2v_lit.bench.demo import HONEST, make_demo
    from anti_i2v_lit.bench.plan import Interrupted
    from anti_i2v_lit.generators import GENERATORS
    from anti_i2v_lit.settings import load_settings

    overrides = list(arguments.overrides)
    if arguments.steps is not None:
        overrides.append(f"attack.steps={arguments.steps}")
    settings = load_settings(overrides=overrides)
    generator = GENERATORS.build(
        {
            "name": "cogvideox",
            "path": arguments.generator,
            "num_inference_steps": arguments.sampling_steps,
            "num_frames": arguments.frames,
        }
    )
    try:
        demo = make_demo(settings, generator, out=arguments.out)
    except Interrupted:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 3
    for line in demo.lines:
        print(line)
    print(f"pictures: {demo.picture}\nclips:    {demo.animation}\n\n{HONEST}")
    return 0
