"""Which attackers' models a table's protections know."""

import shutil
from pathlib import Path

from anti_i2v_lit.bench.plan import TablePlan, known_models
from anti_i2v_lit.checkpoints import COGVIDEOX, EMBEDDED, checkpoint_folder


def test_a_copy_of_the_surrogate_is_white_box_and_another_model_is_not(tmp_path: Path) -> None:
    packaged = checkpoint_folder(EMBEDDED, COGVIDEOX)
    copy = shutil.copytree(packaged, tmp_path / "copy")
    other = shutil.copytree(packaged, tmp_path / "other")
    (copy / "model_index.json").write_text("{}")
    for file in other.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    plan = TablePlan(
        reference="ours",
        noise=True,
        generators={
            "same": {"name": "cogvideox", "path": EMBEDDED},
            "copy": {"name": "cogvideox", "path": str(copy)},
            "other": {"name": "cogvideox", "path": str(other)},
            "unet": {"name": "dynamicrafter", "path": EMBEDDED},
        },
        variants={"ours": {"surrogates": [{"name": "cogvideox", "path": EMBEDDED}]}},
    )
    assert known_models(plan, []) == {"noise": (), "ours": ("same", "copy")}


def test_a_model_that_a_transform_runs_is_white_box() -> None:
    plan = TablePlan(
        reference="ours",
        generators={
            "mmdit": {"name": "cogvideox", "path": EMBEDDED},
            "unet": {"name": "dynamicrafter", "path": EMBEDDED},
        },
        variants={
            "ours": {"surrogates": [{"name": "cogvideox", "path": EMBEDDED}]},
            "through": {"attack": {"transforms": [{"name": "vae", "model": "unet_128"}]}},
        },
    )
    known = known_models(plan, [])
    assert known["ours"] == ("mmdit",) and known["through"] == ("mmdit", "unet")
