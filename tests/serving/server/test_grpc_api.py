"""What gRPC's calls may cost before they have asked, and after they were answered."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse

from tfcorr.serving.server import grpc_api
from tfcorr.serving.server.errors import RequestError
from tfcorr.serving.server.grpc_api import Unread, make_server
from tfcorr.serving.server.metrics import Metrics
from tfcorr.serving.server.service import Service
from tfcorr.serving.server.settings import Limits

STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def asked(check, key=None, channels=1, **limits):
    """What `check` makes of channels to a server without models."""

    async def run():
        registry = SimpleNamespace(names=("cascade",), status=lambda spec: {})
        server = make_server(Service(registry, Limits(**limits), Metrics()), key, 10)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
        found = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own) for _ in range(channels)]
        try:
            return await check(*found)
        finally:
            for each in found:
                await each.close()
            await server.stop(None)

    return asyncio.run(run())


async def never():
    """A message that does not come."""
    await asyncio.sleep(30)
    yield b""


async def code_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


def test_who_has_no_key_is_refused_before_the_message_has_come():
    async def check(channel):
        call = channel.stream_unary(PREDICT)
        return await asyncio.wait_for(code_of(call(never())), 5)

    assert asked(check, key="secret") is grpc.StatusCode.UNAUTHENTICATED


def test_a_message_that_does_not_come_is_waited_for_so_long(monkeypatch):
    monkeypatch.setattr(grpc_api, "MESSAGE", 0.2)

    async def check(channel):
        return await asyncio.wait_for(code_of(channel.stream_unary(PREDICT)(never())), 5)

    assert asked(check) is grpc.StatusCode.DEADLINE_EXCEEDED


def test_where_many_messages_are_coming_the_first_of_them_gives_way():
    async def check(*channels):
        waiting = []
        for channel in channels[:3]:
            waiting.append(channel.stream_unary(PREDICT)(never()))
            await asyncio.sleep(0.3)
        code = await asyncio.wait_for(code_of(waiting[0]), 5)
        status = channels[3].unary_unary(
            STATUS, GetModelStatusRequest.SerializeToString, GetModelStatusResponse.FromString
        )
        request = GetModelStatusRequest()
        request.model_spec.name = "cascade"
        await asyncio.wait_for(status(request), 5)  # in the place of the next
        return code, waiting[2].done()

    assert asked(check, channels=4, requests=2) == (grpc.StatusCode.DEADLINE_EXCEEDED, False)


def test_answers_that_a_peer_does_not_take_are_counted_until_it_does():
    unread, calls = Unread(100), []

    def context(peer):
        return SimpleNamespace(peer=lambda: peer, add_done_callback=calls.append)

    unread.add(90, context("a"))
    with pytest.raises(RequestError, match="earlier answers have not been read; read them"):
        unread.add(20, context("a"))
    unread.add(20, context("b"))  # who has none may always have one
    with pytest.raises(RequestError):
        unread.add(1, context("b"))
    calls[0](None)
    unread.add(70, context("a"))
    for each in calls[1:]:
        each(None)
    assert (unread._total, dict(unread._of)) == (0, {})
