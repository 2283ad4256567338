"""An Airflow DAG to copy: score every night; retries go on where the killed attempt was."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    "recsparse_nightly",
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
):
    BashOperator(
        task_id="score",
        # The space keeps Airflow from taking the path of a script for that of a template.
        bash_command="/srv/recsparse/pipelines/nightly/score.sh ",
        env={
            "RATINGS": "/srv/recsparse/ratings/*.parquet",
            "MODEL": "/srv/recsparse/model",
            "OUTPUT": "/srv/recsparse/nightly",
            "TODAY": "{{ ds }}",
        },
        append_env=True,
    )
