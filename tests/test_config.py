from pathlib import Path

import pytest
import yaml

from tfcorr.config import load_settings, save_settings
from tfcorr.cooperation.optimisers import OptimiserSettings
from tfcorr.settings import InputError
from tfcorr.study.settings import load_study
from tfcorr.towers.sasrec import SASRec

# what is wrong: (YAML, overrides, the sentence after the file's name)
WRONG = {
    "misspelt section": (
        "data: {path: a.csv}\ntrainin: {}",
        [],
        ": unknown setting 'trainin'; did you mean 'training'?",
    ),
    "misspelt setting": (
        "data: {path: a.csv}\ntraining: {epoch: 3}",
        [],
        ": unknown setting 'training.epoch'; did you mean 'epochs'?",
    ),
    "misspelt tower setting": (
        "data: {path: a.csv}\nretriever: {name: sasrec, head: 2}",
        [],
        ": retriever: unknown setting 'head'; did you mean 'heads'?",
    ),
    "setting of another tower": (
        "data: {path: a.csv}\nranker: {name: din, heads: 2}",
        [],
        ": ranker: unknown setting 'heads'; expected one of: activation, attention, counts, dim, dropout, "
        "features, inner, item_dropout, mlp, name, products, recency",
    ),
    "misspelt setting in the middle": (
        "data: {path: a.csv}\nmiddle: [{tower: {name: gru4rec}, kep: 30}]",
        [],
        ": unknown setting 'middle.0.kep'; did you mean 'keep'?",
    ),
    "misspelt setting of a middle tower": (
        "data: {path: a.csv}\nmiddle: [{tower: {name: gru4rec}, optimiser: {learning_rat: 1}}]",
        [],
        ": unknown setting 'middle.0.optimiser.learning_rat'; did you mean 'learning_rate'?",
    ),
    "unknown tower": (
        "data: {path: a.csv}\nretriever: {name: sasrek}",
        [],
        ": retriever: there is no 'sasrek'; did you mean 'sasrec'?",
    ),
    "wrong type": (
        "data: {path: a.csv}\ntraining: {epochs: many}",
        [],
        ": training.epochs: Input should be a valid integer, unable to parse string as an integer (received: 'many')",
    ),
    "out of range": (
        "data: {path: a.csv}\nsampler: {temperature: 0}",
        [],
        ": sampler.temperature: Input should be greater than 0 (received: 0)",
    ),
    "unreadable filter": (
        "data: {path: a.csv, filter: stars > 3}",
        [],
        ": data.filter: a filter reads 'rating >= 4' or 'event == click' (received: 'stars > 3')",
    ),
    "no data": ("seed: 1", [], ": 'data' is required"),
    "no mapping": ("- a\n- b", [], ": holds list, expected a mapping of settings such as 'data: …'"),
    "no YAML": ("data: {path: [", [], ": is no YAML: "),
    "a key that stands twice": ("data: {path: a.csv}\ndata: {path: b.csv}", [], ": is no YAML: 'data' stands twice"),
    "a date that is none": ("data: {path: a.csv}\nseed: 2001-99-99", [], ": is no YAML: month must be in 1..12"),
    "a tower named by a list": (
        "data: {path: a.csv}\nretriever: {name: [a]}",
        [],
        ": retriever: there is no ['a']; expected one of: bsarec, caser",
    ),
    "k beyond what is retrieved": (
        "data: {path: a.csv}\nevaluation: {retrieve: 50, k: [100]}",
        [],
        ": k = 100 is beyond the 50 items that the ranker is handed; lower k, or hand it more",
    ),
    "infinite learning rate": (
        "data: {path: a.csv}\ntraining: {ranker: {learning_rate: .inf}}",
        [],
        ": training.ranker.learning_rate: Input should be a finite number",
    ),
    "layers of no width": (
        "data: {path: a.csv}\nranker: {mlp: [0]}",
        [],
        ": ranker: mlp.0: Input should be greater than 0 (received: 0)",
    ),
    "a name that is no folder's": ("name: ../x\ndata: {path: a.csv}", [], ": name: String should match pattern"),
}


def write(tmp_path, text):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("case", WRONG)
def test_malformed_settings_are_refused_with_one_clear_sentence(tmp_path, case):
    text, overrides, sentence = WRONG[case]
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_settings(path, overrides)
    print(f"{case}: {caught.value}")  # pytest -rP -k malformed shows them all
    assert str(caught.value).startswith(f"{path}{sentence}")
    assert "\n" not in str(caught.value)


def test_overrides_are_read_as_yaml_and_checked_like_the_file(tmp_path):
    path = write(tmp_path, "data: {path: a.csv}")
    settings = load_settings(
        path, ["training.retriever.learning_rate=0.5", "ranker.attention=[8, 4]", "evaluation.exclude_seen=true"]
    )
    assert settings.training.retriever.learning_rate == 0.5
    assert settings.ranker.model_dump()["attention"] == (8, 4)
    assert settings.evaluation.exclude_seen
    for override, sentence in {
        "training.epoch=3": "did you mean 'epochs'",
        "epochs": "expected NAME=VALUE",
        "data.path.name=x": "'path' is a value and has no settings below it",
    }.items():
        with pytest.raises(InputError, match=sentence):
            load_settings(path, [override])


def test_settings_survive_being_saved(tmp_path):
    settings = load_settings(write(tmp_path, "data: {path: a.csv}\nranker: {recency: true}\nretriever: {layers: 2}"))
    save_settings(settings, tmp_path / "settings.yaml")
    assert load_settings(tmp_path / "settings.yaml") == settings
    assert settings.name == "pipeline"
    assert settings.data.path == Path.cwd() / "a.csv"


PIPELINES = sorted((Path(__file__).parents[1] / "pipelines").rglob("*.yaml"))
STUDIES = [path for path in PIPELINES if "\nsystems:" in path.read_text()]


@pytest.mark.parametrize(
    "path", [path for path in PIPELINES if path.parent.name == "paper"], ids=lambda path: path.stem
)
def test_the_papers_pipelines_have_the_papers_settings(path):
    """Section 4.1.3: one layer, two heads, feed-forward 128, dropout 0.3, sigmoids in DIN; and nothing that the paper
    does not have."""
    settings = load_settings(path)
    retriever, ranker, sampler, training = settings.retriever, settings.ranker, settings.sampler, settings.training
    assert (retriever.name, retriever.layers, retriever.heads, retriever.feed_forward, retriever.dropout) == (
        "sasrec",
        1,
        2,
        128,
        0.3,
    )
    assert (ranker.name, ranker.attention, ranker.mlp) == ("din", (128, 64), (128, 64, 64))
    assert (ranker.activation, ranker.recency, ranker.dropout, ranker.item_dropout) == ("sigmoid", False, 0.3, 0)
    assert (ranker.products, ranker.inner, ranker.counts) == (False, False, None)
    assert (sampler.pool, sampler.samples, sampler.temperature, training.kl_weight) == (100, 20, 1, 1)
    assert (sampler.pool_scope, sampler.correction, sampler.proposal) == ("example", "paper", "uniform")
    assert (training.method, training.start, training.item_vectors, training.averaging) == (
        "corr",
        "random",
        "random",
        0,
    )
    assert (training.loss, training.retriever, training.ranker) == ("softmax", OptimiserSettings(), OptimiserSettings())
    assert settings.evaluation.order == "ranker"


def test_the_papers_tables_are_shipped_and_those_of_the_recipe():
    of_paper = {*(f"table{number}" for number in range(2, 7)), "figure2", "ablation"}
    assert {path.stem for path in STUDIES} == of_paper | {"recipe", "recipe-parts"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_is_valid(path):
    assert load_study(path).settings.name == path.stem


@pytest.mark.parametrize("path", sorted({*PIPELINES} - {*STUDIES}), ids=lambda path: path.stem)
def test_every_pipeline_that_is_shipped_is_valid(path):
    assert load_settings(path).name == path.stem
    assert yaml.safe_load(path.read_text())["data"]


def test_adversarial_training_needs_two_samples(tmp_path):
    pipeline = write(tmp_path, "data: {path: a.csv}\ntraining: {method: adversarial}\nsampler: {samples: 1}")
    with pytest.raises(InputError, match=r"relative to the others; set sampler\.samples to 2 at least"):
        load_settings(pipeline)


def test_windows_need_a_causal_retriever(tmp_path, monkeypatch):
    pipeline = tmp_path / "a.yaml"
    pipeline.write_text("data: {path: a.csv}\nretriever: {name: sasrec}\ntraining: {examples: window}")
    assert load_settings(pipeline).training.examples == "window"
    monkeypatch.setattr(SASRec, "causal", False)
    with pytest.raises(InputError, match="window needs a causal retriever, sasrec is none; set it to prefix"):
        load_settings(pipeline)
