"""The page on the gauntlet, from the registry and the docstrings, so that it cannot go stale.

python -m anti_i2v_lit.purifications.document > docs/gauntlet.md
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.gauntlets import GAUNTLETS
from anti_i2v_lit.purifications.social_network import NETWORKS

_SEVERITY, _SOURCE = "Severity in native units:", "Source:"

_HEAD = """# The gauntlet

What happens to a photo after it was cloaked: platforms re-save it, attackers try to clean it. Every
purification runs on one scale of severity from 0 (nothing) to 1 (the harshest setting that people
use). A protection is worth what is left after the worst row, so a report says "protected after"
the rows that were run, and nothing more.

    anti-i2v list purifications

This page is written by `python -m anti_i2v_lit.purifications.document`; a test compares the two.
"""

_TIERS = {
    "quick": "a look: nothing and five cheap rows",
    "written": "tier 1: what any re-saved upload is; cheap enough for every file",
    "audit": "tier 2: a sample of an archive, with named networks, round trips through "
    "autoencoders and diffusion models",
    "release": "tier 3: everything here, before a method is released",
}

_TAIL = """## What runs at which size

Rows with a network inside (`vae`, `noisy_upscaling`, `diffpure`, `gridpure`, `remover`) and those
"at the model's size" (`model_size`) look at the photo at `work_px`, the size that the attacker's
video model takes. Nothing above that size reaches the model, and a cloak that was made at a model's
size is as fine there as a purifier expects it to be. `gauntlet(name, work_px=...)` sets it for all
rows; the default of 128 is that of the packaged models. `work_px: 0` takes the photo's own size.

All other rows run at the photo's own size, as platforms do, and a model that sees 128 pixels of a
large photo sees little of them. Root mean square change at 128 pixels of one portrait of 1024
pixels (of 3000 pixels), grey levels, where a cloak of 16 levels makes about 13:

| half size | half size + JPEG q75 | JPEG q50 | noise 12.75 | greyscale |
| ---: | ---: | ---: | ---: | ---: |
| 0.3 (0.2) | 1.4 (0.7) | 1.3 (0.9) | 1.4 (-) | 19 (19) |

So "protected after half size" says little of a large photo; the rows at the model's size are
harder.

`face_crop` needs the face: whoever calls `purify` hands in the boxes of the photos. It moves the
face, as `crop` and `rotation` do, so it has to be found again before the result is framed by it.

## The packaged networks

The [patch diffusion model](../anti_i2v_lit/purifications/weights/patch_diffusion/MODEL_CARD.md) and
the [remover](../anti_i2v_lit/purifications/weights/remover/MODEL_CARD.md) were trained in minutes
on a CPU. They stand in for what attackers have: a diffusion model of ImageNet or faces, Stable
Diffusion's upscaler, a remover trained on thousands of pairs. A cloak that survives them has not
been shown to survive those. Any of those can be given by folder:

    {name: diffpure, model: FOLDER}             # a DDPM: unet/ and scheduler/, diffusers layout
    {name: noisy_upscaling, upscaler: FOLDER}   # StableDiffusionUpscalePipeline
    {name: vae, model: FOLDER}                  # AutoencoderKL, AutoencoderTiny, TAESD's files, ...
    {name: remover, path: FILE}                 # trained on your own pairs

A remover for one's own settings, from pairs that the tool itself makes:

    anti-i2v cloak PHOTOS --out CLOAKED
    python -m anti_i2v_lit.purifications.train_remover --clean PHOTOS --cloaked CLOAKED --out FILE

## What it costs

Seconds of one CPU core for a 1024 x 1024 photo with `work_px` 128, once, on one machine: 8.3 for
GrIDPure, 3.4 for DiffPure, 0.6 and 0.15 for the packaged autoencoders, 0.4 for noisy upscaling,
below 0.5 for every other row (`recolour` was not measured). The cost of networks grows with the
square of `work_px`. They use a GPU where there is one; that was not measured.

## Several cloaks of one photo

Whoever finds a photo cloaked more than once can average the copies. Cloak it with several seeds,
average the folders, and judge the folder of means as one more protection:

    anti-i2v cloak PHOTOS --out CLOAKED_0 seed=0
    anti-i2v cloak PHOTOS --out CLOAKED_1 seed=1
    python -m anti_i2v_lit.purifications.averaging CLOAKED_0 CLOAKED_1 --out MEANS

## Inside the attack loop

Purifications marked as differentiable can be drawn inside the loop (`attack.transforms`). Some have
the true gradient, rounding and real encoders that of the identity (straight-through). The others
keep no graph. Training against rows of the gauntlet says nothing about the rows left out, so leave
some out and report those. `anti-i2v table trained` does: the defaults, and the same steps with JPEG
saves and resizes drawn, judged after those, after uploads, which are made of them, and after rows
of other kinds.

## What is missing

Face restoration, super-resolution other than the above, image editors that redraw the person, and
Stable Diffusion's upscaler as a packaged model. Numbers of networks and messengers are those of
others, with the year; none was measured here. Metadata, which networks strip, are not pixels.
"""


def page() -> str:
    """The Markdown of docs/gauntlet.md."""
    parts = [_HEAD, "## Tiers\n"]
    for name, rows in GAUNTLETS.items():
        labels = "; ".join(row.label for row in rows)
        parts.append(f"- **{name}** ({_TIERS[name]}), {len(rows)} rows: {labels}.")
    parts.append("\n## Purifications\n")
    parts.append("| name | what | severity | defaults | gradient | tiers | source |")
    parts.append("| --- | --- | --- | --- | --- | --- | --- |")
    parts += [_line(name) for name in PURIFICATIONS.names()]
    parts.append("\n## Networks and messengers\n")
    parts.append("| network | largest size, px | JPEG quality | chroma | source |")
    parts.append("| --- | --- | --- | --- | --- |")
    for name, network in NETWORKS.items():
        size = f"{network.max_width_px} x {network.max_height_px}"
        parts.append(
            f"| {name} | {size} | {network.quality} | {network.subsampling} | {network.source} |"
        )
    return "\n".join(parts) + "\n\n" + _TAIL


def paragraph(docstring: str, start: str) -> str:
    """What follows a marker up to the end of its paragraph, on one line.

    Raises:
        ValueError: the marker is not there.
    """
    _, found, rest = docstring.partition(start)
    if not found:
        raise ValueError(f"docstring without {start!r}: {docstring[:60]}")
    return " ".join(re.split(r"\n\s*\n", rest)[0].split())


def _line(name: str) -> str:
    cls: Any = PURIFICATIONS.load(name)
    docstring = cls.__doc__
    what = docstring.strip().split("\n")[0].rstrip(".")
    severity = paragraph(docstring, _SEVERITY).rstrip(".")
    source = paragraph(docstring, _SOURCE).rstrip(".")
    gradient = cls.is_differentiable.fget.__doc__.rstrip(".")
    used = [
        tier
        for tier, rows in GAUNTLETS.items()
        if any(row.config is not None and row.config["name"] == name for row in rows)
    ]
    defaults = ", ".join(f"{field.name}={field.default}" for field in fields(cls.Config))
    cells = (f"`{name}`", what, severity, defaults, gradient, ", ".join(used), source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(page(), end="")
