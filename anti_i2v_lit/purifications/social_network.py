"""What named social networks and messengers do to an upload.

None of them publishes its encoder. The table holds what networks state or what others measured,
with the year: it ages, and a network's apps, site and countries differ. All of them also strip
metadata (EXIF, most of XMP and IPTC), which no pixel shows, so nothing of it appears here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.ops.jpeg import jpeg_emulated
from anti_i2v_lit.ops.resize import resize
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.resize import shrunk


@dataclass(frozen=True, kw_only=True)
class Network:
    """How one network stores a photo.

    Attributes:
        max_width_px: larger photos are shrunk to fit, in pixels.
        max_height_px: the same for the other side, in pixels.
        quality: of the JPEG, on libjpeg's scale of 1 to 100.
        subsampling: chroma resolution of the JPEG.
        source: where the numbers come from.
    """

    max_width_px: int
    max_height_px: int
    quality: int
    subsampling: str
    source: str


NETWORKS = {
    "facebook": Network(
        max_width_px=2048,
        max_height_px=2048,
        quality=85,
        subsampling="4:2:0",
        source="long side 2048 for high quality: Moltisanti et al. 2015, 'Image Manipulation on "
        "Facebook for Forensics Evidence'; quality 85 as ImageMagick reads the tables: "
        "dsp.stackexchange.com/q/74275, 2021; subsampling assumed",
    ),
    "facebook_960": Network(
        max_width_px=960,
        max_height_px=960,
        quality=75,
        subsampling="4:2:0",
        source="long side 960 for ordinary quality: Moltisanti et al. 2015; quality 75 measured "
        "on 960 px uploads: a student's tests quoted by ralfheinrich.de, 2017; subsampling assumed",
    ),
    "instagram": Network(
        max_width_px=1080,
        max_height_px=1350,
        quality=75,
        subsampling="4:2:0",
        source="1080 px wide and at most 4:5 upright: as stated by upload guides, 2026; quality "
        "70 to 85 and 4:2:0: qainsta.com, undated and not measured; 75 is a choice in between",
    ),
    "telegram": Network(
        max_width_px=1280,
        max_height_px=1280,
        quality=87,
        subsampling="4:2:0",
        source="the clients' own code: 1280 px and quality 87, quoted in telegramdesktop/tdesktop "
        "issue 6520, 2020, and DrKLO/Telegram pull request 2098, 2026; subsampling is the "
        "default of the encoders called",
    ),
    "telegram_large": Network(
        max_width_px=2560,
        max_height_px=2560,
        quality=87,
        subsampling="4:2:0",
        source="side limit of photos sent as large ones since 2023: forkgram/TelegramAndroid "
        "issue 192; quality as for telegram",
    ),
    "whatsapp": Network(
        max_width_px=1600,
        max_height_px=1600,
        quality=75,
        subsampling="4:2:0",
        source="standard quality, about 75 at 1600 px: shrinkto.com, 2026, not measured there; "
        "subsampling assumed",
    ),
    "x": Network(
        max_width_px=2048,
        max_height_px=2048,
        quality=85,
        subsampling="4:2:0",
        source="JPEG at 85 if the upload's quality is higher: the network's announcement of "
        "December 2018, twittercommunity.com topic 118695; 2048 px is its 'large' variant; "
        "subsampling assumed",
    ),
}


@final
class SocialNetwork(Purification):
    """Resize to a named network's limit, save as JPEG like it, resize back.

    Severity in native units: at 1 the photo is shrunk to the network's limit (not at all if it
    fits) and saved at the network's quality; below, sides are 1 - severity * (1 - share at 1) and
    quality round(100 - severity * (100 - quality at 1)). Metadata, which networks strip as well,
    are not pixels and do not appear.

    Source: per network in `NETWORKS`, with the year; stated by others, none measured here.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the stack.

        Attributes:
            network: a name in `NETWORKS`; no unit.
        """

        network: str = "facebook"

        def __post_init__(self) -> None:
            check_in(self.network, NETWORKS, "social network")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: rounding is straight-through."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        network = NETWORKS[self.config.network]
        height, width = photos.shape[-2:]
        share = min(1.0, network.max_width_px / width, network.max_height_px / height)
        small = shrunk((height, width), 1.0 - severity * (1.0 - share))
        quality = round(100 - severity * (100 - network.quality))
        stored = jpeg_emulated(resize(photos, small), quality, network.subsampling)
        return resize(stored, (height, width))
