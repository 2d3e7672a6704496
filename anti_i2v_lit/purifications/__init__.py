"""What a platform or an attacker does to a photo."""

from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.registry import Registry

PURIFICATIONS: Registry[Purification] = Registry(
    "purification",
    "anti_i2v_lit.purifications.base:Purification",
    {
        "bit_depth": "anti_i2v_lit.purifications.bit_depth:BitDepth",
        "blur": "anti_i2v_lit.purifications.blur:GaussianBlur",
        "chroma_blur": "anti_i2v_lit.purifications.chroma_blur:ChromaBlur",
        "crop": "anti_i2v_lit.purifications.crop:CentreCrop",
        "diffpure": "anti_i2v_lit.purifications.diffpure:DiffPure",
        "face_crop": "anti_i2v_lit.purifications.face_crop:FaceCrop",
        "gamma": "anti_i2v_lit.purifications.gamma:Gamma",
        "grey": "anti_i2v_lit.purifications.grey:Greyscale",
        "gridpure": "anti_i2v_lit.purifications.gridpure:GridPure",
        "jpeg": "anti_i2v_lit.purifications.jpeg:JpegSave",
        "jpeg_twice": "anti_i2v_lit.purifications.jpeg_twice:JpegTwice",
        "model_size": "anti_i2v_lit.purifications.model_size:AtModelSize",
        "noise": "anti_i2v_lit.purifications.noise:GaussianNoise",
        "noisy_upscaling": "anti_i2v_lit.purifications.noisy_upscaling:NoisyUpscaling",
        "platform": "anti_i2v_lit.purifications.platform:PlatformStack",
        "recolour": "anti_i2v_lit.purifications.recolour:Recolour",
        "remover": "anti_i2v_lit.purifications.remover:LearnedRemover",
        "resize": "anti_i2v_lit.purifications.resize:ResizeDownUp",
        "rotation": "anti_i2v_lit.purifications.rotation:Rotation",
        "screenshot": "anti_i2v_lit.purifications.screenshot:Screenshot",
        "social_network": "anti_i2v_lit.purifications.social_network:SocialNetwork",
        "vae": "anti_i2v_lit.purifications.vae:VaeRoundTrip",
        "video_codec": "anti_i2v_lit.purifications.video_codec:VideoCodec",
        "webp": "anti_i2v_lit.purifications.webp:WebpSave",
    },
)
