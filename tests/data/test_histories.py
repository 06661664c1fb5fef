import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracles
from tfcorr.data.batches import evaluation_batches, steps_per_epoch, training_batches
from tfcorr.data.dataset import prepare
from tfcorr.data.interactions import DataSettings, Interactions
from tfcorr.data.sources import load
from tfcorr.settings import InputError

ROWS = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"), st.integers(0, 5)), min_size=1, max_size=80
)


def interactions(rows):
    frame = pl.DataFrame(rows, schema={"user": pl.String, "item": pl.String, "time": pl.Int64}, orient="row")
    return Interactions(frame.lazy(), [("read", len(rows))], "rows")


def long_rows(users=5, items=9, each=8, seed=0):
    rng = np.random.default_rng(seed)
    return [(f"u{u}", f"i{i}", int(t)) for u in range(users) for t, i in enumerate(rng.integers(0, items, size=each))]


def by_user(dataset):
    """Every user's item ids in time order."""
    histories, ids = dataset.histories, dataset.catalogue.ids
    items = np.split(histories.items, histories.offsets[1:-1])
    return {user: [ids[item - 1] for item in own] for user, own in zip(histories.users, items, strict=True)}


@given(ROWS, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_preparation_is_the_oracles(rows, least):
    """Filter until none is left, stable time order, by an oracle that counts rows one by one."""
    expected = oracles.split(rows, least)
    if max((len(history) for history in expected.values()), default=0) < 4:
        with pytest.raises(InputError, match="rows: nothing is left"):
            prepare(interactions(rows), least)
        return
    dataset = prepare(interactions(rows), least)
    histories, ids = dataset.histories, dataset.catalogue.ids
    found = {
        user: [ids[item - 1] for item in histories.items[histories.offsets[u] : histories.offsets[u + 1]]]
        for u, user in enumerate(histories.users)
    }
    assert found == expected
    training = [item for history in expected.values() for item in history[:-2]]
    assert dict(zip(ids, dataset.catalogue.counts, strict=True)) == {item: training.count(item) for item in ids}
    assert [what for what, *_ in dataset.account] == ["read", f"dropped: fewer than {least} interactions", "left"]
    assert dataset.account[0][1] + dataset.account[1][1] == dataset.account[2][1] == sum(map(len, expected.values()))


def test_leave_one_out_takes_the_last_two_and_trains_on_all_but_the_first():
    dataset = prepare(interactions([("a", item, time) for time, item in enumerate("uvwxyz")]), 1)
    targets = {split: dataset.histories.targets(split).tolist() for split in ("train", "validation", "test")}
    assert targets == {"train": [1, 2, 3], "validation": [4], "test": [5]}
    histories = prepare(interactions([(f"u{n}", f"i{t}", t) for n in range(1, 9) for t in range(n)]), 1).histories
    owned = np.unique(histories.owners(histories.targets("train")), return_counts=True)[1]
    assert histories.training_counts.tolist() == owned.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("examples", ["prefix", "window"])
def test_an_epoch_visits_every_training_target_once_with_the_items_before_it(examples):
    dataset = prepare(interactions(long_rows()), 1)
    histories, length, size = dataset.histories, 3, 4
    steps = steps_per_epoch(histories, examples, length, size)
    seen = []
    for context, target in training_batches(histories, examples, length, size, seed=1).take(2 * steps):
        rows = zip(context["history"].numpy().tolist(), target.numpy().tolist(), strict=True)
        seen += [(tuple(([0] * length + history)[-length:]), item) for history, item in rows]
    expected = []
    for start, end in zip(histories.offsets, histories.offsets[1:], strict=False):
        history = histories.items[start:end].tolist()
        expected += [
            (tuple(([0] * length + history[:place])[-length:]), history[place]) for place in range(1, len(history) - 2)
        ]
    half = len(seen) // 2
    assert sorted(seen[:half]) == sorted(seen[half:]) == sorted(expected)
    assert seen[:half] != seen[half:] != expected


@pytest.mark.parametrize("examples", ["prefix", "window"])
def test_a_targets_user_is_the_one_who_chose_it(examples):
    rows = [(f"u{u}", f"i{10 * u + t:02}", t) for u in range(6) for t in range(10)]  # no item is of two users
    histories = prepare(interactions(rows), 1).histories
    for context, target in training_batches(histories, examples, 4, 8, seed=1).take(10):
        np.testing.assert_array_equal(context["user"], (target.numpy() - 1) // 10 + 1)


def test_windows_hold_what_comes_before_their_targets_and_are_cut_elsewhere_each_epoch():
    """Every user has the items 1 to 30 in order, so at each place that is named must stand the target less one.

    Before it stand at least three quarters as many items as a history may have, or all that there are.
    """
    histories = prepare(interactions([(f"u{u}", f"i{t:02}", t) for u in range(6) for t in range(30)]), 1).histories
    steps, rows = steps_per_epoch(histories, "window", 8, 20), []
    for context, target in training_batches(histories, "window", 8, 20, seed=1).take(2 * steps):
        window = context["window"].numpy()
        np.testing.assert_array_equal(window.ravel()[context["place"]], target - 1)
        rows += [row[row > 0] for row in window]
        row, column = np.divmod(context["place"], window.shape[1])
        before = np.array(
            [np.count_nonzero(window[each, : place + 1]) for each, place in zip(row, column, strict=True)]
        )
        assert (before >= np.minimum(target - 1, 6)).all()
    assert all((np.diff(row) == 1).all() for row in rows)
    assert max(map(len, rows)) == 8
    assert len({row[0] for row in rows}) > 4


def test_a_batch_is_as_wide_as_its_longest_history_and_batches_have_like_lengths():
    rows = [(f"u{u}", f"i{t % 7}", t) for u, length in enumerate([5, 9, 40, 30, 6, 25] * 5) for t in range(length)]
    histories = prepare(interactions(rows), 1).histories
    steps = steps_per_epoch(histories, "prefix", 20, 16)
    filled = [
        context["history"].numpy() > 0
        for context, _ in training_batches(histories, "prefix", 20, 16, seed=1).take(steps)
    ]
    assert all(each[:, 0].any() for each in filled)
    assert max(each.shape[1] for each in filled) == 20
    assert np.mean(np.concatenate([each.ravel() for each in filled])) > 0.95
    assert [each.shape[1] for each in filled] != sorted(each.shape[1] for each in filled)


@pytest.mark.parametrize("examples", ["prefix", "window"])
def test_batches_from_an_epoch_on_are_those_of_the_whole_stream(examples):
    histories = prepare(interactions(long_rows()), 1).histories
    steps = steps_per_epoch(histories, examples, 3, 4)
    whole = [
        target.numpy().tolist() for _, target in training_batches(histories, examples, 3, 4, seed=1).take(3 * steps)
    ]
    later = [
        target.numpy().tolist()
        for _, target in training_batches(histories, examples, 3, 4, seed=1, first_epoch=2).take(steps)
    ]
    assert whole[2 * steps :] == later
    other = [target.numpy().tolist() for _, target in training_batches(histories, examples, 3, 4, seed=2).take(steps)]
    assert other != whole[:steps]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_sees_each_user_with_all_that_came_before(split):
    dataset = prepare(interactions([*long_rows(), *[("short", f"i{i}", i) for i in range(4)]]), 1)
    histories = dataset.histories
    back = {"validation": 2, "test": 1}[split]
    users = iter(range(6))
    for batch in evaluation_batches(histories, split, length=3, batch_size=4):
        for row, user in zip(range(len(batch.target)), users, strict=False):
            *past, target = histories.items[histories.offsets[user] : histories.offsets[user + 1] - back + 1].tolist()
            assert batch.target[row] == target
            assert batch.context["history"][row].numpy().tolist() == ([0, 0, 0, *past])[-3:]
            assert batch.context["user"][row] == user + 1
            assert [item for item in batch.seen[row].numpy() if item] == past
    assert next(users, None) is None


def test_a_limit_takes_users_evenly_apart_and_rows_name_them():
    """The rows name each target's place in the split's order, which batches of like histories do not keep."""
    histories = prepare(interactions([*long_rows(), *[("short", f"i{i}", i) for i in range(4)]]), 1).histories
    every, some = (list(evaluation_batches(histories, "test", 50, 4, limit=limit)) for limit in (None, 3))
    rows = np.concatenate([batch.row for batch in every])
    assert rows[0] == histories.users.index("short")
    assert sorted(rows) == list(range(6))
    assert sorted(np.concatenate([batch.row for batch in some])) == [0, 2, 4]
    targets = dict(zip(rows, np.concatenate([batch.target for batch in every]), strict=True))
    for batch in some:
        assert [targets[row] for row in batch.row.numpy()] == batch.target.numpy().tolist()


def test_checksum_tells_data_apart_and_nothing_else():
    rows = long_rows()
    same, other = (
        prepare(interactions(rows), 1).checksum,
        prepare(interactions([*rows[:-1], ("u4", "i1", 99)]), 1).checksum,
    )
    assert prepare(interactions(rows), 1).checksum == same != other


@pytest.mark.parametrize("name", ["many.csv", "many.parquet"])
def test_a_million_interactions_are_read_and_prepared_as_one_number_each(tmp_path, monkeypatch, name):
    """No expanded prefix in memory, and never the reader that goes row by row, though the last column is mostly
    empty."""
    monkeypatch.setattr("tfcorr.data.tables._read_irregular", lambda *_: pytest.fail("read row by row"))
    rng, size = np.random.default_rng(0), 1_000_000
    users, items = rng.integers(0, 20_000, size).astype(str), rng.integers(0, 5_000, size).astype(str)
    frame = pl.DataFrame(
        {"user_id": users, "item_id": items, "timestamp": rng.integers(0, 10**9, size), "coupon": None}
    )
    write = frame.write_csv if name.endswith("csv") else frame.write_parquet
    write(tmp_path / name)
    histories = load(DataSettings(path=tmp_path / name)).histories
    assert histories.items.nbytes == 4 * size
    context, target = next(iter(training_batches(histories, "prefix", 50, 512, seed=0)))
    assert context["history"].shape[0] == 512
    assert target.shape == (512,)
