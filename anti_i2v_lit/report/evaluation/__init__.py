"""The page and the TensorBoard files of an evaluation."""

from anti_i2v_lit.report.evaluation.limits import Config
from anti_i2v_lit.report.evaluation.page import write_report
from anti_i2v_lit.report.evaluation.tensorboard import write_tensorboard

__all__ = ["Config", "write_report", "write_tensorboard"]
