"""Sharded training on Spark's executors, here 8 ranks.

    spark-submit pipelines/cluster/spark_torchrun.py split runs/sharded sharded.toml 8

TorchDistributor starts one process a task slot and sets what torchrun would; the data and the output must be on a
file system that all executors see. Spark starts all ranks again when a stage fails, and they go on from the checkpoint.
"""

import sys
import tomllib
from pathlib import Path


def run(settings: dict[str, object]) -> None:
    """What each rank does."""
    from recsparse.distributed import TrainConfig, train  # noqa: PLC0415 (imported where the ranks are)

    train(TrainConfig.parse(settings))


if __name__ == "__main__":
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import SparkSession

    data, output, file, ranks = sys.argv[1:]
    spark = SparkSession.builder.appName("recsparse").getOrCreate()
    TorchDistributor(num_processes=int(ranks), local_mode=False, use_gpu=False).run(
        run, {"data": data, "output": output} | tomllib.loads(Path(file).read_text())
    )
    spark.stop()
