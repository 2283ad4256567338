from pathlib import Path

import pytest

from recsparse.config import RunConfig, read_config
from recsparse.errors import ConfigError
from recsparse.pipeline.rows import trainings
from recsparse.validation import validate

LEAST = """
name = "mine"
data.source = "ratings.csv"
[[models]]
kind = "ials"
"""


@pytest.fixture
def config(tmp_path):
    """Read a pipeline file of this text."""

    def read(text):
        (tmp_path / "mine.toml").write_text(text)
        return read_config(tmp_path / "mine.toml")

    return read


def test_the_least_there_must_be(config):
    found = config(LEAST)
    assert found == RunConfig.model_validate(
        {"name": "mine", "data": {"source": "ratings.csv"}, "models": [{"kind": "ials"}]}
    )
    assert found.directory == Path("runs/mine")
    assert found.evaluation.headline in found.evaluation.metrics


def test_every_pipeline_shipped_is_valid():
    files = sorted((Path(__file__).parents[1] / "pipelines").glob("*.toml"))
    assert files
    for file in files:
        assert trainings(read_config(file))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("[spilt]\nseed = 1", "spilt: there is no such key; allowed are data, evaluation, models, name"),
        ('[split]\nseed = "one"', "split.seed: 'one' is not allowed: input should be a valid integer"),
        ('[split]\nprotocol = "weak"', "split.protocol: 'weak' is not allowed: there is no protocol 'weak'; there are"),
        ("[split.options]\ntset = 0.1", "the protocol strong has no option 'tset'; it has: validation, test, target"),
        ("[evaluation]\nmax_loss = 1.5", "evaluation.max_loss: 1.5 is not allowed: input should be less than 1."),
        ('[evaluation]\nmetrics = ["ndgc@5"]', "there is no metric 'ndgc@5'; there are"),
        ('[evaluation]\nmetrics = ["ndcg@5"]', "evaluation.headline: 'ndcg@20' is not allowed: it must be one of"),
        ("[evaluation]\nfew_shot = [1, -1]", "evaluation.few_shot.1: -1 is not allowed: input should be greater"),
        ("[recommendations]\ntop = 0", "recommendations.top: 0 is not allowed: input should be greater than 0."),
        ('[[models]]\nkind = "ialz"', "models.1.kind: 'ialz' is not allowed: there is no model 'ialz' here"),
        (
            '[[models]]\nkind = "ease"\ntune.reg = []',
            "models.1.tune.reg: [] is not allowed: list should have at least 1",
        ),
        ("[data.cleaning]\nk_core = -2", "data.cleaning.k_core: -2 is not allowed"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_what_is_allowed(config, tmp_path, more, sentence):
    with pytest.raises(ConfigError) as error:
        config(LEAST + more)
    assert sentence in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'mine.toml'}: ")
    assert "\n" not in str(error.value)


def test_a_name_cannot_leave_its_folder(config):
    with pytest.raises(ConfigError, match=r"name: '\.\./\.\./etc' is not allowed"):
        config(LEAST.replace("mine", "../../etc"))


def test_files_that_cannot_be_read(config, tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.toml cannot be read: No such file"):
        read_config(tmp_path / "nothing.toml")
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML"):
        config("name = ")
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"mine\.toml is not TOML"):
        read_config(tmp_path / "mine.toml")


def test_only_new_items_warm_up() -> None:
    document = {"name": "x", "data": {"source": "r.csv"}, "models": [{"kind": "ials"}], "evaluation": {"warm_up": [1]}}
    with pytest.raises(ValueError, match="needs the protocol cold-items, not strong"):
        RunConfig.model_validate(document)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({"source": "r.csv"}, {}, "published needs a data.source that was published with a split: .*gowalla.*ml-1m"),
        ({"source": "ml-100k"}, {}, "published needs a data.source that was published with a split"),
        ({"source": "gowalla"}, {"test": 0.1}, "published has no option 'test'; it has: validation"),
        ({"source": "gowalla", "cleaning": {"min_item": 5}}, {}, "data.cleaning would change the published parts"),
    ],
)
def test_only_what_was_published_with_a_split_is_split_so(data: dict, options: dict, message: str) -> None:
    split = {"protocol": "published", "options": options}
    with pytest.raises(ValueError, match=message):
        RunConfig.model_validate({"name": "x", "data": data, "split": split, "models": [{"kind": "ials"}]})


@pytest.mark.parametrize(
    ("model", "evaluation", "message"),
    [
        ({"kind": "ials"}, {}, "ranks: 2 is not allowed: only mf is trained sharded"),
        ({}, {"noise": [0.1]}, "evaluation.noise and evaluation.warm_up fit models again"),
        ({"params": {"output": "x"}}, {}, "models.0.params: output: the pipeline says where"),
        ({"params": {"negatives": 2}}, {}, "models.0.params: negatives: there is no such key"),
        ({"params": {"items": {"budget": {"row": 9}}}}, {}, "models.0.params: items.budget.row: there is no such key"),
        ({"params": {"value_type": "int8"}}, {}, "models.0.value_types: set it there"),
    ],
)
def test_what_a_sharded_model_of_a_pipeline_may_not_say(model: dict, evaluation: dict, message: str) -> None:
    models = [{"kind": "mf", "ranks": 2, **model}]
    document = {"name": "x", "data": {"source": "r.csv"}, "models": models, "evaluation": evaluation}
    with pytest.raises(ConfigError, match=message):
        trainings(validate(RunConfig, document, "mine"))


@pytest.mark.parametrize(
    ("items", "label", "family"),
    [
        ({"recipe": {"density": 0.25}}, "Sharded MF 16 element 4 int8", "element"),
        ({"budget": {"rows": 1200}}, "Sharded MF 16 rows 1,200 int8", "row"),
        (
            {"budget": {"rows": 9, "utility": "norm", "fallback": "zero"}},
            "Sharded MF 16 rows 9 norm zero int8",
            "row",
        ),
    ],
)
def test_a_sharded_model_is_called_by_what_is_kept_of_its_items(items: dict, label: str, family: str) -> None:
    params = {"dim": 16, "items": items}
    models = [{"kind": "mf", "ranks": 2, "params": params, "value_types": ["fp32", "int8"]}]
    [found] = trainings(RunConfig.model_validate({"name": "x", "data": {"source": "r.csv"}, "models": models}))
    assert found.label_of("int8") == label
    assert found.family_of("int8") == family
