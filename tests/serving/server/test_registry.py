"""Which versions are loaded, by models that are made up: some hang, some come again under their number."""

import asyncio
import shutil
import threading
import time
from types import SimpleNamespace

import pytest
from grpc import StatusCode
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tfcorr.serving import versions
from tfcorr.serving.server import registry as registries
from tfcorr.serving.server.registry import Registry, State

NAMES = ("retriever", "cascade")


def publish(folder, version, label="stable", content="a"):
    for name in versions.MODELS:
        (folder / name / str(version)).mkdir(parents=True)
        (folder / name / str(version) / "saved_model.pb").write_text(content)
    versions.publish(folder, version, label, 9)


class Models:
    """Loads texts; one that is "hangs" until it is let go."""

    def __init__(self):
        self.released, self.closed = threading.Event(), []

    def __call__(self, path, name, version):
        content = (path / "saved_model.pb").read_text()
        if content == "hangs":
            self.released.wait(20)
        if content == "broken":
            raise IndexError("list index out of range")
        return SimpleNamespace(
            version=version, content=content, close=lambda: self.closed.append((name, version, content))
        )


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr(registries, "LOOK", 0.05)
    models, said = Models(), []
    yield Registry(tmp_path, NAMES, models, said.append, 0.4), models, said, tmp_path
    models.released.set()


def answers(registry, name="cascade"):
    return registry.find(ModelSpec(name=name)).content


def test_another_export_with_the_number_of_one_that_is_loaded_takes_its_place(made):
    registry, models, said, folder = made
    publish(folder, 1)
    asyncio.run(registry.refresh())
    before = registry.find(ModelSpec(name="cascade"))
    asyncio.run(registry.refresh())
    assert registry.find(ModelSpec(name="cascade")) is before
    assert len(said) == 2
    shutil.rmtree(folder)
    asyncio.run(registry.refresh())
    assert answers(registry) == "a"  # goes on while a run is trained anew
    publish(folder, 1, content="b")
    asyncio.run(registry.refresh())
    assert [answers(registry, name) for name in NAMES] == ["b", "b"]
    assert models.closed == [("retriever", 1, "a"), ("cascade", 1, "a")]
    assert said[-1] == "cascade version 1: available anew"


def test_where_the_other_export_is_broken_the_one_before_goes_on(made):
    registry, _, said, folder = made
    publish(folder, 1)
    asyncio.run(registry.refresh())
    shutil.rmtree(folder)
    publish(folder, 1, content="broken")
    asyncio.run(registry.refresh())
    assert answers(registry) == "a"
    assert registry.statuses["cascade"][1].state == State.AVAILABLE
    assert said[-1] == (
        "cascade version 1: cannot be loaded: IndexError: list index out of range; the one before goes on"
    )


def test_all_models_of_a_version_have_one_time_together(made):
    registry, _, said, folder = made
    publish(folder, 1, content="hangs")
    started = time.monotonic()
    asyncio.run(registry.refresh())
    assert time.monotonic() - started < 0.75  # twice 0.4 if each had its own
    assert [registry.statuses[name][1].code for name in NAMES] == [StatusCode.DEADLINE_EXCEEDED] * 2
    assert said[-1] == "cascade version 1: cannot be loaded: it was not ready within 0.4 s"


def test_a_version_that_hangs_is_given_up_when_no_label_is_at_it_any_more(made):
    registry, models, _, folder = made
    registry._seconds = 20
    publish(folder, 1)
    asyncio.run(registry.refresh())
    publish(folder, 2, content="hangs")

    async def roll_on():
        following = asyncio.create_task(registry.refresh())
        await asyncio.sleep(0.2)
        assert registry.statuses["retriever"][2].state == State.LOADING
        publish(folder, 3, content="c")
        await asyncio.wait_for(following, 10)
        await registry.refresh()

    started = time.monotonic()
    asyncio.run(roll_on())
    assert time.monotonic() - started < 15
    assert answers(registry) == "c"
    assert registry.statuses["retriever"][2].code is StatusCode.CANCELLED
    models.released.set()
