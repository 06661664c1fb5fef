import numpy as np
import polars as pl
import pytest
from scipy import stats

from tfcorr.evaluation.compare import compare
from tfcorr.settings import InputError


def ranked(folder, seed, users=200, best=1, retrieve=500):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    ranks = rng.integers(best, 60, size=users)
    missed = [None if rank > 50 else int(rank) for rank in ranks]
    table = pl.DataFrame(
        {"user": [f"u{u}" for u in range(users)], "target": ["i"] * users, "retriever": missed, "cascade": missed}
    )
    how = {"retrieve": str(retrieve), "index": "exact", "exclude_seen": "True"}
    table.sample(fraction=1, shuffle=True, seed=seed).write_parquet(folder / "ranks.parquet", metadata=how)
    return folder, np.where(ranks <= 20, 1 / np.log2(1.0 + ranks), 0)


def test_difference_and_interval_are_those_of_a_paired_t_test(tmp_path):
    (first, a), (second, b) = ranked(tmp_path / "a", 1), ranked(tmp_path / "b", 2, best=5)
    found = next(
        each for each in compare([first], [second], k=20) if (each.stage, each.metric) == ("cascade", "ndcg@20")
    )
    difference = a - b
    error = difference.std(ddof=1) / np.sqrt(200)
    assert found.difference == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - stats.t.ppf(0.975, 199) * error)
    assert found.high == pytest.approx(difference.mean() + stats.t.ppf(0.975, 199) * error)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(difference.mean() / error), 199))


def test_a_group_of_seeds_counts_as_its_mean(tmp_path):
    (one, a), (two, b), (other, c) = (ranked(tmp_path / str(seed), seed) for seed in (1, 2, 3))
    found = next(
        each for each in compare([one, two], [other], k=20) if (each.stage, each.metric) == ("cascade", "ndcg@20")
    )
    assert found.difference == pytest.approx(((a + b) / 2 - c).mean())


def test_equal_runs_do_not_differ(tmp_path):
    folder, _ = ranked(tmp_path / "a", 1)
    assert all((each.difference, each.p_value) == (0, 1) for each in compare([folder], [folder], k=10))


def test_runs_measured_in_other_ways_are_refused(tmp_path):
    first, second = ranked(tmp_path / "a", 1)[0], ranked(tmp_path / "b", 1, retrieve=50)[0]
    with pytest.raises(
        InputError, match=r"was measured with retrieve 50, index exact, exclude_seen True, .* with retrieve 500"
    ):
        compare([first], [second], k=10)


def test_a_cut_off_beyond_what_was_retrieved_is_refused(tmp_path):
    folder, _ = ranked(tmp_path / "a", 1, retrieve=50)
    assert compare([folder], [folder], k=50)
    with pytest.raises(
        InputError, match="only 50 items were retrieved for each user, so none has a rank up to 51; lower --k"
    ):
        compare([folder], [folder], k=51)


def test_runs_of_other_users_are_refused(tmp_path):
    first, second = ranked(tmp_path / "a", 1)[0], ranked(tmp_path / "b", 1, users=20)[0]
    with pytest.raises(InputError, match="other users or targets"):
        compare([first], [second], k=10)
    with pytest.raises(InputError, match=r"no ranks.parquet; make it with: tfcorr evaluate"):
        compare([first], [tmp_path / "nowhere"], k=10)
