import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from tfcorr.search_space import SearchSpace
from tfcorr.tuning import Trial
from tfcorr.tuning.figures import draw, explained


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), max_size=12))
def test_what_a_setting_explains_is_the_share_of_variance_that_goes_when_each_choice_has_its_mean(rows):
    groups, values = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], float)
    share = explained(groups, values)
    assert -1e-9 <= share <= 1 + 1e-9
    if len(rows) and values.var() > 1e-6:
        left = np.array([value - values[groups == group].mean() for group, value in zip(groups, values, strict=True)])
        assert share == pytest.approx(1 - (left**2).mean() / values.var())


SPACES = {
    "ranker.dropout": SearchSpace.parse({"float": [0, 0.5]}),
    "sampler.pool": SearchSpace.parse({"log_int": [10, 1000]}),
    "retriever": SearchSpace.parse({"choice": [{"name": "sasrec"}, {"dim": 8}]}),
    "never.drawn": SearchSpace.parse({"boolean": True}),
}


@pytest.mark.parametrize("objectives", [[0.5], [0.5, 0.5, 0.5], [None, 0.2, 0.3, None]])
def test_few_equal_and_failed_trials_can_be_drawn(tmp_path, objectives):
    values = {"ranker.dropout": 0.1, "sampler.pool": 20, "retriever": {"dim": 8}}
    trials = [Trial(f"trial-{number}", values, each, 3, 1.0, "") for number, each in enumerate(objectives)]
    draw(trials, "cascade_ndcg@20", SPACES, tmp_path / "search.png")
    picture = imread(tmp_path / "search.png")
    assert picture.shape[1] == 7.5 * 160
    assert picture.std() > 0.05  # not empty
