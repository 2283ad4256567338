"""Figures of trainings in MLflow or TensorBoard, for those who keep theirs there; off unless asked for."""

from recsparse.tracking.mlflow import MLflow
from recsparse.tracking.tensorboard import TensorBoard
from recsparse.tracking.tracker import Tracker

__all__ = ["MLflow", "TensorBoard", "Tracker"]
