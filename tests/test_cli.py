import json
import re
import shlex
import shutil
import subprocess
import sys

import polars as pl
import pytest
import typer

from tfcorr import cli, runs
from tfcorr.config import load_settings
from tfcorr.data.sources import load
from tfcorr.serving import versions
from tfcorr.serving.recommend import Recommender

GROUP = typer.main.get_command(cli.app)
COMMANDS = [name for name, command in GROUP.commands.items() if not hasattr(command, "commands")]
COMMANDS += [f"data {name}" for name in GROUP.commands["data"].commands]


@pytest.fixture
def tfcorr(monkeypatch, capsys):
    """Runs the command in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tfcorr", *map(str, arguments)])
        monkeypatch.setattr(cli.console, "width", 140)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_page_has_an_example_that_parses(tfcorr, command):
    code, out, _ = tfcorr(*command.split(), "--help")
    assert code == 0
    example = re.search(
        rf"Example: tfcorr ({command}.*?)(?:\*|╭|Arguments|Options|$)", " ".join(out.replace("│", " ").split())
    )[1]
    chosen, arguments = GROUP, example.split()
    with chosen.make_context("tfcorr", cli._spread(arguments), resilient_parsing=False) as context:
        while hasattr(chosen, "commands"):
            _, chosen, arguments = chosen.resolve_command(context, arguments)
        chosen.make_context(command, cli._spread(arguments))  # a usage error if it does not parse


def test_prepared_data_are_those_that_a_run_reads(tfcorr, trained, project, tmp_path, monkeypatch):
    monkeypatch.chdir(project.parent)
    for name in ("prepared", "it's, day: 1 #2"):
        code, out, _ = tfcorr("prepare", project, tmp_path / name)
        assert code == 0
        words = shlex.split(out[out.index("--set") :])
        assert words[0] == "--set"
        settings = load_settings(project, words[1:])
        assert settings.data.path == tmp_path / name
        runs.check_data(trained, load(settings.data))
    code, _, err = tfcorr("prepare", project, tmp_path / "prepared")
    assert code == 1
    assert "is there already" in err


def test_made_up_data_are_written_and_described(tfcorr, tmp_path):
    made, pipeline = tmp_path / "made.parquet", tmp_path / "made.yaml"
    code, out, _ = tfcorr("data", "synthesize", made, "--users", "50", "--items", "20", "--interactions", "900")
    assert code == 0
    assert "900 interactions written to" in out
    pipeline.write_text(f"data: {{path: {made}, min_interactions: 1}}")
    code, out, _ = tfcorr("data", "describe", pipeline)
    assert code == 0
    assert re.search(r"interactions +900\b", out)
    for options, sentence in (
        (("--users", "9", "--interactions", "8"), "--interactions 8: there are 9 users"),
        ((), "made.csv: give"),
    ):
        code, _, err = tfcorr("data", "synthesize", tmp_path / ("x.parquet" if options else "made.csv"), *options)
        assert code == 1
        assert sentence in err


def test_help_needs_no_tensorflow():
    program = (
        "import sys, tfcorr.cli; sys.argv = ['tfcorr', '--help']\ntry: tfcorr.cli.main()\n"
        "finally: assert 'tensorflow' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_wrong_usage_exits_with_2_and_wrong_input_with_1(tfcorr, tmp_path):
    assert tfcorr("train")[0] == 2
    assert tfcorr("evaluate", tmp_path, "--index", "faiss")[0] == 2
    assert tfcorr("recommend", tmp_path)[0] == 2
    assert tfcorr("train", tmp_path, "--resume", "--overwrite")[0] == 2
    assert tfcorr("recommend", tmp_path, "--history", "1", "--k", "0")[0] == 2
    assert tfcorr("data", "synthesize", tmp_path / "x.parquet", "--users", "0")[0] == 2
    for arguments in (
        ("train", tmp_path / "no.yaml"),
        ("evaluate", tmp_path),
        ("recommend", tmp_path, "--history", "1"),
        ("export", tmp_path),
    ):
        code, out, err = tfcorr(*arguments)
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {tmp_path}")
        assert err.count("\n") == 1


def test_evaluate_prints_a_table_or_one_json_object(tfcorr, trained, tmp_path, eagerly):
    run = tmp_path / "run"  # a copy, as ranks.parquet is written anew
    shutil.copytree(trained.folder, run)
    code, out, _ = tfcorr("evaluate", run, "--k", "1", "5", "10", "--json", "--ranker-alone")
    assert code == 0
    measured = json.loads(out)
    assert measured["users"] == 60
    assert measured["users_per_second"] > 0
    expected = [f"{name}@{k}" for name in ("ndcg", "recall", "mrr") for k in (1, 5, 10)]
    assert list(measured["metrics"]["cascade"]) == list(measured["metrics"]["ranker_alone"]) == expected
    assert list(measured["metrics"]["retriever"]) == [*expected, "recall@25"]
    code, out, _ = tfcorr("evaluate", run, "--k", "5", "--retrieve", "9", "--ranker-alone")
    assert code == 0
    assert "60 users" in out
    assert "recall@9" in out
    assert f"{measured['metrics']['ranker_alone']['ndcg@5']:.4f}" in out


NOTED = {"history": "x", "exclude": "y"}


def test_recommend_prints_titles_and_writes_files(tfcorr, trained, tmp_path):
    code, out, _ = tfcorr(
        "recommend", trained.folder, "--history", "film-1, film-2", "--k", "3", "--exclude", "film-3", "--titles"
    )
    assert code == 0
    assert len(re.findall(r"│ [123] +│ film-\d+ +│ Film No. \d+", out)) == 3
    assert "film-3 " not in out
    pl.DataFrame({"user": ["a", "b"], "history": [["film-1"], []]}).write_parquet(tmp_path / "users.parquet")
    code, out, _ = tfcorr(
        "recommend",
        trained.folder,
        "--input",
        tmp_path / "users.parquet",
        "--output",
        tmp_path / "out.parquet",
        "--k",
        "4",
    )
    assert code == 0
    assert "8 recommendations written" in out
    assert pl.read_parquet(tmp_path / "out.parquet").height == 8
    for option in (["--titles"], ["--exclude", "film-3"]):
        code, _, err = tfcorr(
            "recommend", trained.folder, "--input", "users.parquet", "--output", "out.parquet", *option
        )
        assert code == 2
        assert "--exclude, --titles and --json are of one history" in " ".join(err.replace("│", " ").split())


def test_recommend_prints_json_and_notes_what_is_unknown(tfcorr, trained):
    asked = "recommend", trained.folder, "--history", "film-1,x", "--k", "2", "--exclude", "y,film-9"
    code, out, err = tfcorr(*asked, "--json", "--titles")
    expected = Recommender(trained.folder).recommend([["film-1"]], 2, [["film-9"]]).drop("row")
    assert [{name: row[name] for name in expected.columns} for row in json.loads(out)] == expected.to_dicts()
    assert all(row["title"] == f"Film No. {row['item'].removeprefix('film-')}" for row in json.loads(out))
    notes = [f"note: {name}: 1 of 2 unknown, and so without effect: {text}" for name, text in NOTED.items()]
    assert (code, err.splitlines()) == (0, notes)
    assert tfcorr(*asked)[2] == err


@pytest.mark.parametrize("given", ["user=ann", "device"])
def test_a_context_that_no_tower_reads_is_refused(tfcorr, trained, given):
    code, _, err = tfcorr("recommend", trained.folder, "--history", "film-1", "--context", given)
    assert code == 1
    assert err == f"error: --context {given}: expected NAME=VALUE, and the run's towers read: nothing but a history\n"


def test_compare_prints_a_table_or_json(tfcorr, trained):
    code, out, _ = tfcorr("compare", trained.folder, f"{trained.folder},{trained.folder}", "--k", "5")
    assert code == 0
    assert re.search(r"cascade +ndcg@5 +[\d.]+ +[\d.]+ +\+0.0000 +\+0.0000 to \+0.0000 +1", out)
    code, out, _ = tfcorr("compare", trained.folder, trained.folder, "--json")
    assert {each["metric"] for each in json.loads(out)["differences"]} == {"ndcg@20", "recall@20", "mrr@20"}


def test_doctor_prints_versions_and_finds_everything_well(tfcorr):
    code, out, _ = tfcorr("doctor")
    assert code == 0
    for word in ("tensorflow ", "scann ", "2.20.0", "search works", "CPU:0"):
        assert word in out


def test_doctor_tells_what_is_broken(tfcorr, monkeypatch):
    from tfcorr import doctor

    monkeypatch.setitem(doctor.PACKAGES, "polars", "no_such_module")
    code, out, _ = tfcorr("doctor")
    assert code == 1
    assert "fails: ModuleNotFoundError" in out


def test_keras_3_in_use_is_a_clear_import_error():
    program = "import tensorflow as tf; tf.keras.Model\nimport tfcorr"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env={"PATH": ""}
    )
    assert result.returncode == 1
    assert "tfcorr needs Keras 2 (tf_keras), but tf.keras is Keras 3 already; import tfcorr before" in result.stderr


def test_tensorflow_may_be_imported_first():
    program = (
        "import tensorflow as tf\nimport tfcorr; tfcorr.CoRR; assert tf.keras.Model.__module__.startswith('tf_keras')"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PATH": ""})


def test_labels_are_shown_and_moved(tfcorr, trained, tmp_path):
    run = tmp_path / "run"
    for name in ("cascade", "cascade_scann", "retriever", "ranker"):
        for version in ("1", "2"):
            (run / "serving" / name / version).mkdir(parents=True)
    versions.publish(run / "serving", 1, "stable", 3)
    assert tfcorr("label", run) == (0, "stable: version 1\n", "")
    assert tfcorr("label", run, "canary=2", "stable=2") == (0, "canary: version 2\nstable: version 2\n", "")
    assert tfcorr("label", run, "canary=") == (0, "stable: version 2\n", "")
    code, _, err = tfcorr("label", run, "stable")
    assert (code, err) == (
        1,
        "error: stable: expected LABEL=VERSION, such as stable=2, or LABEL= to take the label away\n",
    )
    code, _, err = tfcorr("label", tmp_path / "nowhere", "stable=1")
    assert (code, "holds no exported version; make one with: tfcorr export" in err) == (1, True)
    assert not (tmp_path / "nowhere").exists()


def test_a_server_or_a_run_must_be_given_to_recommend(tfcorr, trained):
    code, _, err = tfcorr("recommend", "--history", "film-1")
    assert (code, "give a run's folder, or --server HOST:PORT" in " ".join(err.replace("│", " ").split())) == (2, True)
    code, _, err = tfcorr("recommend", "--server", "127.0.0.1:1", "--history", "film-1")
    assert (code, err.startswith("error: 127.0.0.1:1: UNAVAILABLE")) == (1, True)


def test_an_empty_key_is_not_taken_for_none(tfcorr, trained, monkeypatch):
    monkeypatch.setenv("TFCORR_API_KEY", "")
    for command in (["serve", trained.folder], ["recommend", "--server", "127.0.0.1:1", "--history", "film-1"]):
        code, _, err = tfcorr(*command)
        assert (code, err) == (1, "error: TFCORR_API_KEY is empty: set it to the key, or unset it to do without one\n")


def test_what_is_asked_for_is_read_as_it_may_be_pasted(tfcorr, trained):
    code, out, _ = tfcorr("recommend", trained.folder, "--history", "film-1\nfilm-2")
    assert code == 0
    assert out == tfcorr("recommend", trained.folder, "--history", "film-1,film-2")[1]
    _, _, err = tfcorr("recommend", trained.folder, "--history", '"film\n-1",a\x1cb,\u2028')
    assert err == "note: history: 3 of 3 unknown, and so without effect: film\\n-1, a\\x1cb, \\u2028\n"
    for history, sentence in (("x" * 200_000, "cannot be read as ids"), ("\udcff", "is no UTF-8")):
        code, _, err = tfcorr("recommend", trained.folder, "--history", history)
        assert (code, sentence in err) == (1, True)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_in_one_sentence_and_nothing_half_written_is_left(tfcorr, trained, small_disk):
    """Written by Polars and by TensorFlow."""
    sentence = "no space is left on the disk; free some, then give the command again, tfcorr train with --resume\n"
    table = small_disk / "made.parquet"
    code, _, err = tfcorr("data", "synthesize", table, "--users", "1000", "--items", "500", "--interactions", "90000")
    assert (code, err.endswith(sentence), err.startswith("error: ")) == (1, True, True)
    assert list(small_disk.iterdir()) == []
    run = small_disk.parent / "run"
    shutil.copytree(trained.folder, run)
    shutil.move(run / "serving", small_disk.parent / "served")
    (run / "serving").symlink_to(small_disk)
    code, _, err = tfcorr("export", run)
    assert (code, err.endswith(sentence), str(small_disk) in err) == (1, True, True)
    assert [path for path in small_disk.rglob("*") if path.is_file()] == [small_disk / ".lock"]


def test_a_version_that_is_damaged_is_named(tfcorr, trained, tmp_path):
    shutil.copytree(trained.folder / "serving", tmp_path / "serving")
    (tmp_path / "serving" / "cascade" / "1" / "saved_model.pb").write_bytes(b"x")
    code, _, err = tfcorr("recommend", tmp_path, "--history", "film-1")
    assert (code, "cascade/1: cannot be loaded" in err) == (1, True)


def test_a_table_becomes_a_pipeline_that_is_described(tfcorr, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(project.parent / "clicks.csv", "clicks.csv")
    code, out, _ = tfcorr("init", "clicks.csv")
    assert (code, out.splitlines()[-1]) == (
        0,
        "written to clicks.yaml; look it over, then type: tfcorr train clicks.yaml",
    )
    assert (tmp_path / "clicks.yaml").read_text() in out
    assert tfcorr("data", "describe", "clicks.yaml")[0] == 0
    code, _, err = tfcorr("init", "clicks.csv")
    assert (code, err) == (1, "error: clicks.yaml: is there already; give another name by --output, or remove it\n")
