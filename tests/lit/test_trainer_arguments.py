"""`trainer.*` reaches Lightning; what Lightning refuses is told without a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import CSVLogger

from anti_i2v_lit.lit.run import make_trainer
from anti_i2v_lit.settings import load_settings


def test_loggers_callbacks_and_plain_values_reach_the_trainer(tmp_path: Path) -> None:
    trainer_values = {
        "accelerator": "cpu",
        "max_steps": 7,
        "logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": str(tmp_path)},
        },
        "callbacks": [
            {
                "class_path": "lightning.pytorch.callbacks.Timer",
                "init_args": {"duration": "00:00:01:00"},
            }
        ],
    }
    trainer = make_trainer(load_settings(values={"trainer": trainer_values}), tmp_path, [])
    assert trainer.max_steps == 7
    assert isinstance(trainer.logger, CSVLogger)
    assert any(isinstance(callback, Timer) for callback in trainer.callbacks)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.devcies=2", "devcies"),
        ("trainer.accelerator=gppu", "gppu"),
        ("trainer.callbacks=[lr_monitor]", "class_path"),
        ("trainer.logger={class_path: lightning.pytorch.loggers.NoSuch}", "NoSuch"),
    ],
)
def test_what_lightning_refuses_is_a_plain_error(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(load_settings(overrides=[override]), tmp_path, [])
