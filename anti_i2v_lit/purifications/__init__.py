"""What a platform or an attacker does to a photo."""

from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.registry import Registry

PURIFICATIONS: Registry[Purification] = Registry(
    "purification",
    "anti_i2v_lit.purifications.base:Purification",
    {
        "blur": "anti_i2v_lit.purifications.blur:GaussianBlur",
        "grey": "anti_i2v_lit.purifications.grey:Greyscale",
        "jpeg": "anti_i2v_lit.purifications.jpeg:JpegSave",
        "noise": "anti_i2v_lit.purifications.noise:GaussianNoise",
        "platform": "anti_i2v_lit.purifications.platform:PlatformStack",
        "resize": "anti_i2v_lit.purifications.resize:ResizeDownUp",
    },
)
