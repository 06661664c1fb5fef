import json

import pytest
import yaml

from tests.conftest import PIPELINE
from tfcorr.config import load_settings, save_settings
from tfcorr.settings import InputError
from tfcorr.tuning.algorithms import oracle_of
from tfcorr.tuning.space import as_overrides, check_draws, own_values, plain, space_of

SEARCH = {
    "retriever.dim": {"choice": [4, 8]},
    "ranker.attention": {"choice": [[8, 4], [16, 8]]},
    "training.ranker.learning_rate": {"log_float": [1e-4, 1e-1]},
    "ranker.dropout": {"float": [0, 0.5]},
    "sampler.samples": {"int": [2, 9]},
    "sampler.pool": {"log_int": [10, 1000]},
    "ranker.recency": {"boolean": True},
    "sampler.local_top": {"int": [3, 9], "when": {"sampler.negatives": ["ltop", "dns"], "ranker.recency": True}},
    "sampler.negatives": {"choice": [None, "ltop", "dns"]},
}


@pytest.fixture
def write(tmp_path):
    """Writes the pipeline with a search: (path, its settings)."""

    def write(search):
        path = tmp_path / "walks.yaml"
        path.write_text(PIPELINE + yaml.safe_dump({"search": search}))
        return path, load_settings(path)

    return write


def draws(settings, count=200):
    oracle = oracle_of("random", space_of(settings.search), {}, "cascade_ndcg@20", count, 3, seed=0)
    return [plain(oracle.populate_space("")["values"], settings.search) for _ in range(count)]


def test_what_is_drawn_lies_in_the_space_and_makes_settings(write):
    path, settings = write(SEARCH)
    found = draws(settings)
    for values in found:
        assert values["retriever.dim"] in (4, 8)
        assert values["ranker.attention"] in ([8, 4], [16, 8])
        assert 1e-4 <= values["training.ranker.learning_rate"] <= 1e-1
        assert 0 <= values["ranker.dropout"] <= 0.5
        assert values["sampler.samples"] in range(2, 10)
        assert ("sampler.local_top" in values) == (values["ranker.recency"] and values["sampler.negatives"] is not None)
        made = load_settings(path, as_overrides(values))
        assert list(made.ranker.attention) == values["ranker.attention"]
        assert made.training.ranker.learning_rate == values["training.ranker.learning_rate"]
    assert {values["sampler.samples"] for values in found} == set(
        range(2, 10)
    )  # misses one by chance: 8 (7/8)^200 < 1e-10
    assert {values.get("sampler.local_top") for values in found} == {None, *range(3, 10)}  # 7 (1 - 1/21)^200 < 1e-3


@pytest.mark.parametrize(
    ("name", "middle"), [("training.ranker.learning_rate", 10**-2.5), ("sampler.pool", 100), ("ranker.dropout", 0.25)]
)
def test_half_of_a_range_is_below_its_middle(write, name, middle):
    """Geometric where it is logarithmic. Beyond 0.4 to 0.6 of 400 draws by chance: less than one in 10,000."""
    _, settings = write(SEARCH)
    below = [values[name] < middle for values in draws(settings, 400)]
    assert 0.4 < sum(below) / len(below) < 0.6


def test_the_first_trial_has_the_pipelines_own_values(write):
    path, settings = write(SEARCH)
    own, missing = own_values(settings, lambda more: load_settings(path, more))
    assert missing is None
    own = plain(own, settings.search)
    assert own == {
        "retriever.dim": 8,
        "ranker.attention": [8, 4],
        "training.ranker.learning_rate": 0.01,
        "ranker.dropout": settings.ranker.dropout,
        "sampler.samples": 5,
        "sampler.pool": 20,
        "ranker.recency": True,
        "sampler.negatives": None,
    }
    assert load_settings(path, as_overrides(own)) == settings


def test_a_whole_tower_can_be_a_choice(write):
    search = {"retriever": {"choice": [{"name": "gru4rec", "dim": 4}, {"name": "sasrec", "dim": 8}]}}
    path, settings = write(search)
    check_draws(settings.search, lambda more: load_settings(path, more))
    assert {load_settings(path, as_overrides(values)).retriever.name for values in draws(settings, 20)} == {
        "gru4rec",
        "sasrec",
    }
    assert own_values(settings, lambda more: load_settings(path, more)) == (
        {"retriever": json.dumps({"dim": 8, "name": "sasrec"})},
        None,
    )


@pytest.mark.parametrize("space", [{"choice": [4, 16]}, {"int": [9, 20]}])
def test_there_is_no_such_trial_where_one_of_them_is_not_in_the_space(write, space):
    path, settings = write(SEARCH | {"retriever.dim": space})
    assert own_values(settings, lambda more: load_settings(path, more)) == ({}, "retriever.dim")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"retriever.dim": {"choice": [4, 8], "int": [1, 2]}},
            r"search.retriever.dim: expected exactly one of .*; received choice, int",
        ),
        ({"retriever.dim": {}}, "received none"),
        ({"retriever.dim": {"int": [8, 4]}}, r"expected \[LOWEST, HIGHEST\]; received \[8, 4\]"),
        ({"ranker.dropout": {"log_float": [0, 0.5]}}, "a logarithmic scale begins above 0"),
        (
            {"retriever.dim": {"chocie": [4, 8]}},
            "unknown setting 'search.retriever.dim.chocie'; did you mean 'choice'?",
        ),
        (
            {"retriever.dim": {"choice": [4, 8], "when": {"ranker.dim": 8}}},
            "ranker.dim must be a setting of this search",
        ),
        (
            {"retriever.dim": {"choice": [4, 8], "when": {"ranker.recency": 3}}, "ranker.recency": {"boolean": True}},
            "is never 3; it may be",
        ),
        (
            {
                "retriever.dim": {"choice": [4, 8], "when": {"ranker.recency": True}},
                "ranker.recency": {"boolean": True, "when": {"retriever.dim": 4}},
            },
            "go in a circle",
        ),
    ],
)
def test_a_mistake_in_a_search_is_one_clear_sentence(write, search, message):
    with pytest.raises(InputError, match=message):
        write(search)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"retriever.dims": {"choice": [4, 8]}},
            r"no choice with retriever.dims makes valid settings: .*did you mean 'dim'\?",
        ),
        ({"ranker.dropout": {"float": [2, 3]}}, "no choice with ranker.dropout makes valid settings"),
    ],
)
def test_a_space_without_a_valid_choice_is_refused_before_anything_is_trained(write, search, message):
    path, settings = write(search)
    with pytest.raises(InputError, match=message):
        check_draws(settings.search, lambda more: load_settings(path, more))


def test_a_run_does_not_keep_the_search_of_its_pipeline(write, tmp_path):
    _, settings = write(SEARCH)
    assert settings.search
    save_settings(settings, tmp_path / "settings.yaml")
    assert load_settings(tmp_path / "settings.yaml").search == {}
