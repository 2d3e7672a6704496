"""The page and the TensorBoard files of an evaluation."""

from anti_i2v_lit.report.evaluation.page import write_report
from anti_i2v_lit.report.evaluation.tensorboard import write_tensorboard

__all__ = ["write_report", "write_tensorboard"]
