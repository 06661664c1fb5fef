from datetime import datetime

import numpy as np
import polars as pl
import pytest
import tensorflow as tf

from tfcorr.data.batches import evaluation_batches, training_batches
from tfcorr.data.features import Feature, FeatureSettings, encode, moments, read_features, write_features
from tfcorr.data.interactions import DataSettings
from tfcorr.data.sources import load
from tfcorr.serving.export import CategoryCode, NumberCode
from tfcorr.settings import InputError

NUMBER = FeatureSettings(of="item", kind="numeric")


def test_categories_are_numbered_in_their_order_wherever_a_cell_holds_several():
    column = pl.Series(["b|a", None, " c ", "", "a||b|b"])
    feature = encode("kind", FeatureSettings(of="item", separator="|"), column, "x.csv")
    assert feature.vocabulary == ["a", "b", "c"]
    assert feature.values.tolist() == [[2, 1], [0, 0], [3, 0], [0, 0], [1, 2]]
    assert encode("kind", FeatureSettings(of="item"), pl.Series([3, 3, None, 1]), "x.csv").values.tolist() == [
        [2],
        [2],
        [0],
        [1],
    ]
    with pytest.raises(InputError, match=r"x\.csv: kind has no value for any item of the data; leave it out"):
        encode("kind", FeatureSettings(of="item"), pl.Series([None, " "], dtype=pl.String), "x.csv")


def test_numbers_are_scaled_and_what_is_missing_is_their_mean():
    feature = encode("price", FeatureSettings(of="item", kind="numeric"), pl.Series([None, "1", "3", " "]), "x.csv")
    assert feature.values.tolist() == [0, -1, 1, 0]
    assert (feature.mean, feature.scale) == (2, 1)
    assert encode("price", FeatureSettings(of="item", kind="numeric"), pl.Series([7, 7]), "x.csv").values.tolist() == [
        0,
        0,
    ]
    with pytest.raises(
        InputError,
        match=r"x.csv: price of the interaction 2 by user and time is '3 EUR', expected a finite number; mend it, or",
    ):
        encode("price", FeatureSettings(of="item", kind="numeric"), pl.Series(["1", "3 EUR"]), "x.csv")


@pytest.mark.parametrize("wrong", [float("inf"), -float("inf"), "inf", "1e999", "NaN or so"])
def test_a_number_that_is_not_finite_is_told_with_whose_it_is(wrong):
    column = pl.Series([None, 1, wrong], strict=False) if isinstance(wrong, float) else pl.Series([None, "1", wrong])
    with pytest.raises(InputError, match=r"x.csv: price of item 'b' is .*, expected a finite number; mend it, or"):
        encode("price", NUMBER, column, "x.csv", owners=[None, "item 'a'", "item 'b'"])


def test_no_number_is_none_however_it_is_written():
    for column in (pl.Series([None, float("nan"), 1, 3]), pl.Series(["", " nan ", " 1 ", "3"])):
        assert encode("price", NUMBER, column, "x.csv").values.tolist() == [0, 0, -1, 1]


@pytest.mark.parametrize("large", [1e39, -1e150, 1e308])
def test_a_number_beyond_single_precision_is_told(large):
    with pytest.raises(InputError, match=r"x.csv: price of .* is -?1e\+\d+, expected a finite number; mend it, or"):
        encode("price", NUMBER, pl.Series([1.0, large, 9.0]), "x.csv")


def test_a_number_far_from_the_others_counts_as_ten_deviations():
    """In training, and of data that came later, by the scale of training."""
    column = pl.Series([*([0.0, 2.0] * 200), 3e38])
    assert encode("price", NUMBER, column, "x.csv").values[-1] == 10
    feature = encode("price", NUMBER, column[:-1], "x.csv")
    later = encode("price", NUMBER, pl.Series([3e38, -1e30, 2.0]), "x.csv", feature)
    assert later.values.tolist() == [10, -10, 1]


@pytest.mark.parametrize("value", [0.1, -3.3e-300, 20240501.0])
def test_numbers_that_are_all_the_same_are_their_mean(value):
    feature = encode("price", NUMBER, pl.Series([value] * 12), "x.csv")
    assert feature.scale == 1
    assert (feature.values == 0).all()


def test_numbers_that_single_precision_cannot_tell_apart_are_told():
    with pytest.raises(InputError, match=r"x.csv: price has numbers from 70000001.0 to 70000003.0, which differ by to"):
        encode("price", NUMBER, pl.Series([70000001, 70000002, 70000003]), "x.csv")


def test_what_serving_makes_of_a_number_is_what_training_made(tmp_path):
    numbers = pl.Series([None, *np.random.default_rng(0).normal(3e5, 40.0, 999)])
    feature = encode("price", NUMBER, numbers, "x.csv")
    write_features([feature], tmp_path / "features.json")
    [read] = read_features(tmp_path / "features.json", 1)
    served = NumberCode(read)(tf.constant(numbers.to_numpy(), tf.float32))
    np.testing.assert_array_equal(served, feature.values)


def test_what_serving_makes_of_several_categories_in_a_text_is_what_training_made():
    column = pl.Series(["b|a", None, " c ", "", "a||b|b"])
    feature = encode("kind", FeatureSettings(of="item", separator="|"), column, "x.csv")
    code = CategoryCode(feature)
    served = code(tf.constant([[text or "", ""] for text in column]))
    for row, expected in zip(served.numpy(), feature.values, strict=True):
        assert set(row) - {0} == set(expected) - {0}
    assert code(tf.constant([["c", "a | b"]])).numpy().tolist() == [[3, 1, 2]]
    texts = tf.constant([["a|b", "a|x"], ["x", ""], ["|", "c"]])
    assert code.known(texts).numpy().tolist() == [[True, False], [False, True], [True, True]]


@pytest.mark.parametrize("column", [pl.Series([None, None]), pl.Series(["", r"\N"]), pl.Series([float("nan")])])
def test_numbers_of_which_none_is_known_are_told(column):
    with pytest.raises(InputError, match=r"x.csv: price has no value for any item of the data; leave it out"):
        encode("price", NUMBER, column, "x.csv")


@pytest.mark.parametrize("column", [pl.Series([["a"], ["b", "c"]]), pl.Series([{"a": 1}]), pl.Series([b"a"])])
@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_a_column_of_lists_or_bytes_is_told(column, kind):
    with pytest.raises(InputError, match=r"x.csv: column 'price' holds .*; expected one text or number a cell"):
        encode("price", FeatureSettings(of="item", kind=kind), column, "x.csv")


def test_a_column_may_be_called_like_a_pattern(tmp_path):
    for name in ("*", "^u.*$"):
        rows = [(f"{u}", f"i{(u + t) % 6}", t, f"{u % 2}") for u in range(4) for t in range(6)]
        names = [name, "item_id", "timestamp", "kind of user"]
        pl.DataFrame(rows, schema=names, orient="row").write_parquet(tmp_path / "clicks.parquet")
        people = pl.DataFrame({name: ["0", "1", "2", "3"], "uid": [9, 9, 9, 9], "^.*$": [1, 2, 3, 4]})
        people.write_parquet(tmp_path / "people.parquet")
        dataset = load(
            DataSettings.parse(
                {
                    "path": tmp_path / "clicks.parquet",
                    "min_interactions": 1,
                    "columns": {"user": name},
                    "users": {"path": tmp_path / "people.parquet", "key": name},
                    "features": {"age": {"of": "user", "kind": "numeric", "column": "^.*$"}},
                }
            )
        )
        assert dataset.histories.users == ["0", "1", "2", "3"]
        assert len(set(dataset.features[0].values[1:])) == 4


def shop(folder, users, items):
    rows = [(f"00{u}", f"i{(u + t) % 6}", t) for u in range(4) for t in range(6)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "clicks.csv")
    pl.DataFrame({"user": users, "age": range(len(users))}, schema={"user": pl.String, "age": pl.Int64}).write_csv(
        folder / "users.csv"
    )
    pl.DataFrame({"item_id": items, "title": items}, schema={"item_id": pl.String, "title": pl.String}).write_csv(
        folder / "titles.csv"
    )
    return DataSettings.parse(
        {
            "path": folder / "clicks.csv",
            "min_interactions": 1,
            "users": {"path": folder / "users.csv", "key": "user"},
            "titles": {"path": folder / "titles.csv"},
            "features": {"age": {"of": "user", "kind": "numeric"}},
        }
    )


def test_a_table_that_knows_nobody_is_told_with_ids_of_both_sides(tmp_path):
    settings = shop(tmp_path, ["0", "1", "2", "3"], ["i0"])
    with pytest.raises(
        InputError,
        match=r"no user has a row in users.csv: ids there are such as '0', '1', '2', users such as '000', '001', '00",
    ):
        load(settings)
    settings = shop(tmp_path, ["000"], ["I0", "I1"])
    with pytest.raises(
        InputError, match=r"no item has a title: ids there are such as 'I0', 'I1', items such as 'i0', "
    ):
        load(settings)


def test_the_account_says_whom_a_table_does_not_know(tmp_path):
    account = load(shop(tmp_path, ["000", "002", "009"], ["i1", "i2"])).account
    assert account[-3:] == [
        ("left", 24, 4, 6),
        ("of these without a title", None, None, 4),
        ("of these without a row in users.csv", None, 2, None),
    ]
    account = load(shop(tmp_path, ["000", "001", "002", "003"], [f"i{item}" for item in range(6)])).account
    assert account[-1] == ("left", 24, 4, 6)


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e999", "cheap"])
def test_a_number_of_an_interaction_that_is_not_finite_is_told_with_its_row(tmp_path, cell):
    rows = "".join(f"u{row // 5},i{row % 4},{row},{cell if row == 7 else row}\n" for row in range(20))
    (tmp_path / "clicks.csv").write_text(f"user_id,item_id,timestamp,price\n{rows}")
    features = {"price": FeatureSettings(of="interaction", kind="numeric")}
    settings = DataSettings(path=tmp_path / "clicks.csv", features=features, min_interactions=1)
    with pytest.raises(
        InputError, match=rf"row 9: a price that is no finite number; received .*{cell}.*; mend the row"
    ):
        load(settings)
    found = load(settings.model_copy(update={"on_bad_rows": "skip"}))
    assert len(found.histories.items) == 19
    assert ("skipped: a price that is no finite number", -1, None, None) in found.account
    assert np.isfinite([found.features[0].mean, found.features[0].scale]).all()


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_moments_are_those_of_the_calendar_whatever_the_unit(unit):
    times = (
        np.array(["1970-01-01T00:00", "2017-11-24T17:21", "2024-02-29T23:59"], "datetime64[s]").astype(np.int64) * unit
    )
    assert moments("hour", times).to_list() == [0, 17, 23]
    assert moments("weekday", times).to_list() == [3, 4, 3]  # Thursday, Friday, Thursday


def write(folder):
    """Four users with the items a to f in turn, on two devices; g is in the file of items alone."""
    rows = [(f"u{u}", "abcdef"[(u + t) % 6], 3600 * t, ["phone", "tv"][t % 2]) for u in range(4) for t in range(6)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "device"], orient="row").write_csv(
        folder / "clicks.csv"
    )
    pl.DataFrame({"id": list("gfedcba"), "kind": ["x", "y", None, "x|y", "x", "y", "x"]}).write_csv(
        folder / "items.csv"
    )
    pl.DataFrame({"user": ["u3", "u1", "u0"], "age": [30, 20, 10]}).write_parquet(folder / "users.parquet")
    return {
        "path": folder / "clicks.csv",
        "min_interactions": 1,
        "items": {"path": folder / "items.csv", "key": "id"},
        "users": {"path": folder / "users.parquet", "key": "user"},
        "features": {
            "genre": {"of": "item", "column": "kind", "separator": "|"},
            "age": {"of": "user", "kind": "numeric"},
            "device": {"of": "interaction"},
            "hour": {"of": "interaction", "kind": "hour"},
        },
    }


@pytest.mark.parametrize("cold", [False, True])
def test_features_stand_beside_whom_they_belong_to(tmp_path, cold):
    dataset = load(DataSettings.parse({**write(tmp_path), "cold_items": cold}))
    assert dataset.catalogue.ids == [*"abcdef", *(["g"] if cold else [])]
    assert dataset.catalogue.warm == 6
    features = {feature.name: feature for feature in dataset.features}
    names = [None, "x", "y"]
    genres = [{names[number] for number in row} - {None} for row in features["genre"].values]
    assert genres == [set(), {"x"}, {"y"}, {"x"}, {"x", "y"}, set(), {"y"}, *([{"x"}] if cold else [])]
    np.testing.assert_allclose(
        features["age"].values * features["age"].scale + features["age"].mean, [20, 10, 20, 20, 30]
    )
    devices, hours = features["device"], features["hour"]
    assert [devices.vocabulary[number - 1] for number in devices.values[:, 0]] == ["phone", "tv"] * 12
    assert [hours.vocabulary[number - 1] for number in hours.values[:, 0]] == list("012345") * 4
    for context, target in training_batches(dataset.histories, "prefix", 3, 4, seed=0, features=dataset.features).take(
        2
    ):
        users = context["user"].numpy()
        np.testing.assert_array_equal(context["age"], features["age"].values[users])
        steps = (target.numpy() - 1 - (users - 1)) % 6  # where each target stands in its user's walk
        np.testing.assert_array_equal(context["hour"][:, 0], steps + 1)
        np.testing.assert_array_equal(context["device"][:, 0], steps % 2 + 1)
    batch = next(iter(evaluation_batches(dataset.histories, "test", 3, 4, dataset.features)))
    assert batch.context["hour"][:, 0].numpy().tolist() == [6, 6, 6, 6]
    assert "genre" not in batch.context


def test_other_features_are_other_data(tmp_path):
    settings = write(tmp_path)
    before = load(DataSettings.parse(settings)).checksum
    assert load(DataSettings.parse(settings)).checksum == before
    pl.DataFrame({"user": ["u3", "u1", "u0"], "age": [30, 20, 11]}).write_parquet(tmp_path / "users.parquet")
    assert load(DataSettings.parse(settings)).checksum != before


def test_what_is_written_of_features_is_read_again(tmp_path):
    age = Feature("age", "user", np.ones(4, np.float32), None, 3.0, 2.0)
    features = [Feature("genre", "item", np.ones((3, 2), np.int32), ["a", "é"]), age]
    write_features(features, tmp_path / "features.json")
    for one, other in zip(read_features(tmp_path / "features.json", 5), features, strict=True):
        assert (one.name, one.of, one.vocabulary, one.mean, one.scale) == (
            other.name,
            other.of,
            other.vocabulary,
            other.mean,
            other.scale,
        )
        assert one.values.dtype == other.values.dtype
        assert one.values.shape == (5, *other.values.shape[1:])


def test_movielens_100k_has_genres_ages_and_occupations():
    features = {
        "genre": {"of": "item", "separator": " "},
        "age": {"of": "user", "kind": "numeric"},
        "occupation": {"of": "user"},
    }
    dataset = load(DataSettings.parse({"source": "movielens-100k", "features": features}))
    genre, age, occupation = dataset.features
    assert len(genre.vocabulary) == 19
    assert len(occupation.vocabulary) == 21
    toy_story = dataset.catalogue.ids.index("1") + 1
    assert {genre.vocabulary[number - 1] for number in genre.values[toy_story] if number} == {
        "Animation",
        "Children's",
        "Comedy",
    }
    first = dataset.histories.users.index("1") + 1
    assert age.values[first] * age.scale + age.mean == pytest.approx(24)
    assert occupation.vocabulary[occupation.values[first, 0] - 1] == "technician"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"items": None},
            "data.features: genre is of each item, but nothing says where from; set data.items to a file",
        ),
        (
            {"items": {"path": "items.csv", "key": "item_id"}},
            r"items.csv: no column 'item_id'; it has: id, kind; set data.items.key",
        ),
        (
            {"features": {"colour": {"of": "item"}}},
            r"items.csv: no column 'colour'; it has: id, kind; set data.features",
        ),
        (
            {"features": {"colour": {"of": "interaction"}}},
            r"clicks.csv: no column 'colour' for the feature colour; the file has",
        ),
        (
            {"features": {"Hour of day": {"of": "interaction"}}},
            "features.Hour of day: a feature's name has small letters",
        ),
        ({"features": {"history": {"of": "user"}}}, "features.history: a feature's name"),
        (
            {"features": {"hour": {"of": "user", "kind": "hour"}}},
            "kind hour is made of an interaction's time: set of: interaction",
        ),
        (
            {"features": {"age": {"of": "user", "kind": "numeric", "separator": "|"}}},
            "kind numeric has one value a cell",
        ),
        ({"features": {}, "cold_items": True}, "cold_items needs a feature of each item"),
        (
            {"source": "gowalla", "features": {"device": {"of": "interaction"}}},
            "source gowalla has no columns of its interactions",
        ),
    ],
)
def test_features_that_cannot_be_had_are_refused(tmp_path, monkeypatch, change, message):
    settings = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load(DataSettings.parse({**settings, **change}))


@pytest.mark.parametrize("times", [[20240531, 20231201], [20240531123000, 20231201000059], [20240531.0]])
def test_dates_whose_digits_are_run_together_have_no_hour(times):
    with pytest.raises(InputError, match=r"times such as 20240531\d* seem to be dates, of which a number has no hour"):
        moments("hour", np.array(times))


@pytest.mark.parametrize("below", ["%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S000"])
def test_dates_with_their_hour_run_together_have_none(below):
    times = [int(datetime(2024, 5, day, 9 + day).strftime(below)) for day in range(1, 9)]
    with pytest.raises(InputError, match="seem to be dates, of which a number has no weekday"):
        moments("weekday", np.array(times))


@pytest.mark.parametrize("times", [[45413.375, 45414.5], [1_700_000_000, 1_700_000_100, 253_402_300_799]])
@pytest.mark.parametrize("unit", [1, 1000])
def test_times_that_are_not_all_since_1970_in_one_unit_have_no_hour(times, unit):
    odd = np.array(times) if unit == 1 else np.array([1_700_000_000, 1_700_000_001, 1_700_000_000_000])
    with pytest.raises(InputError, match=r"has no hour"):
        moments("hour", odd)


def test_of_dates_the_unit_is_known():
    assert moments("hour", np.array([3_600_000_000, 7_200_000_000]), 1_000_000).to_list() == [1, 2]
