"""The judges: identity, fidelity and imperceptibility."""

from anti_i2v_lit.metrics.base import Metric
from anti_i2v_lit.metrics.face_embedder import FaceEmbedder
from anti_i2v_lit.metrics.sets import SetMetric
from anti_i2v_lit.registry import Registry

METRICS: Registry[Metric] = Registry(
    "metric",
    "anti_i2v_lit.metrics.base:Metric",
    {
        "brisque": "anti_i2v_lit.metrics.blind_quality:Brisque",
        "ciede2000": "anti_i2v_lit.metrics.imperceptibility:ColourDifference",
        "ciede2000_p99": "anti_i2v_lit.metrics.imperceptibility:ColourDifferencePeak",
        "clip_i": "anti_i2v_lit.metrics.semantic:ClipImage",
        "clip_t": "anti_i2v_lit.metrics.semantic:ClipText",
        "dino_photo": "anti_i2v_lit.metrics.semantic:DinoPhoto",
        "face_quality": "anti_i2v_lit.metrics.face_quality:FaceQuality",
        "flicker": "anti_i2v_lit.metrics.motion:Flicker",
        "identity_arcface": "anti_i2v_lit.metrics.identity:ArcFaceIdentity",
        "identity_dlib": "anti_i2v_lit.metrics.identity:DlibIdentity",
        "identity_hse": "anti_i2v_lit.metrics.identity:HseIdentity",
        "lightness": "anti_i2v_lit.metrics.imperceptibility:LightnessChange",
        "lpips": "anti_i2v_lit.metrics.imperceptibility:Lpips",
        "max_change_8bit": "anti_i2v_lit.metrics.imperceptibility:MaxChange",
        "missing_faces": "anti_i2v_lit.metrics.identity:MissingFaces",
        "motion": "anti_i2v_lit.metrics.fidelity:Motion",
        "motion_amount": "anti_i2v_lit.metrics.motion:MotionAmount",
        "motion_amount_raft": "anti_i2v_lit.metrics.motion:MotionAmountRaft",
        "motion_smoothness": "anti_i2v_lit.metrics.motion:MotionSmoothness",
        "musiq": "anti_i2v_lit.metrics.learned_quality:Musiq",
        "niqe": "anti_i2v_lit.metrics.blind_quality:Niqe",
        "photo_lpips": "anti_i2v_lit.metrics.fidelity:ClipLpips",
        "photo_psnr": "anti_i2v_lit.metrics.fidelity:ClipPsnr",
        "photo_ssim": "anti_i2v_lit.metrics.fidelity:ClipSsim",
        "psnr": "anti_i2v_lit.metrics.imperceptibility:Psnr",
        "q_align_frames": "anti_i2v_lit.metrics.learned_quality:QAlignFrames",
        "q_align_video": "anti_i2v_lit.metrics.learned_quality:QAlignVideo",
        "ssim": "anti_i2v_lit.metrics.imperceptibility:Ssim",
        "subject_consistency": "anti_i2v_lit.metrics.semantic:SubjectConsistency",
        "warping_error": "anti_i2v_lit.metrics.motion:WarpingError",
    },
)

SET_METRICS: Registry[SetMetric] = Registry(
    "set_metric",
    "anti_i2v_lit.metrics.sets:SetMetric",
    {
        "frechet_dino": "anti_i2v_lit.metrics.frechet:FrechetDino",
        "fvd": "anti_i2v_lit.metrics.frechet:FrechetVideo",
    },
)

FACE_EMBEDDERS: Registry[FaceEmbedder] = Registry(
    "face_embedder",
    "anti_i2v_lit.metrics.face_embedder:FaceEmbedder",
    {
        "arcface": "anti_i2v_lit.metrics.arcface:ArcFace",
        "dlib": "anti_i2v_lit.metrics.dlib_face:DlibFace",
        "hse": "anti_i2v_lit.metrics.hse_face:HseFace",
    },
)
