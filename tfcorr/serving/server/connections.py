"""REST's connections, counted from the moment that they are accepted, so that none who says nothing keeps others out.

aiohttp waits for a request's head as long as it takes, and holds an answer until it is read; asyncio does not count a
connection before TLS has shaken hands.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler
from grpc import StatusCode

from tfcorr.serving.server.errors import RequestError, invalid

FIRST = 10.0  # seconds from a connection to its first request, TLS included
NEXT = 75.0  # to one more
UNREAD = 30.0  # that an answer may lie unread
BODY = 30.0  # from the head of a request to the end of its body
FRESH = 1.0  # in which a new one, or a body, is not ended for the sake of another
LOOK = 0.5  # between looks at all of them
BACKLOG = 1024  # that the system keeps until they are accepted


@dataclass(eq=False)
class Connection:
    """One of them; `since` is when it last was waited for."""

    address: object  # of its peer, which no two have at a time
    opening: asyncio.Task[None] | None = None
    transport: asyncio.Transport | None = None
    since: float = field(default_factory=time.monotonic)
    asks: int = 0  # requests that are being answered
    sends: bool = False  # a body, which is not whole yet
    answered: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or never began."""
        ended = self.opening is not None and self.opening.done() and self.transport is None
        return ended or (self.transport is not None and self.transport.is_closing())

    @property
    def unread(self) -> int:
        """Bytes of answers that its peer has not taken yet."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def end(self) -> None:
        """At once."""
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()


class Answering(RequestHandler):
    """aiohttp's protocol, which also answers a peer that has asked and sends no more."""

    sends_no_more = False

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open, until what was asked is answered; over TLS it cannot."""
        self.sends_no_more = True
        is_plain = self.transport is not None and self.transport.get_extra_info("sslcontext") is None
        return is_plain and (self._waiter is None or self._waiter.done())  # it waits for no request


def answering(server: web.Server) -> Answering:
    """A protocol for a connection to the server."""
    return Answering(server, loop=asyncio.get_running_loop(), **server._kwargs)


class Connections:
    """Accepts them, and ends those that wait for nothing: at a limit the one that has been idle longest."""

    def __init__(self, limit: int, bodies: int, unread_bytes: int) -> None:
        """limit is how many there may be; bodies how many requests that are not whole yet; unread_bytes how much all
        answers together that nobody has read."""
        self._limit, self._bodies, self._unread = limit, bodies, unread_bytes
        self._all: set[Connection] = set()
        self._of: dict[object, Connection] = {}  # by address

    async def accept(
        self, listener: socket.socket, factory: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None
    ) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, address = await loop.sock_accept(listener)
            except OSError:  # no descriptor is free, or it was gone already
                await asyncio.sleep(LOOK)
                continue
            peer.setblocking(False)
            if len(self._all) >= self._limit and not self._make_room():
                peer.close()
                continue
            connection = Connection(address)
            self._all.add(connection)
            self._of[address] = connection
            connection.opening = loop.create_task(_open(connection, peer, factory, tls))
            connection.opening.add_done_callback(partial(_closed_unless_open, connection, peer))

    async def look(self) -> None:
        """For ever: ends what was waited for long enough."""
        while True:
            await asyncio.sleep(LOOK)
            now = time.monotonic()
            for connection in self._swept():
                waited = now - connection.since
                longest = UNREAD if connection.unread else NEXT if connection.answered else FIRST
                if not (connection.asks or connection.sends) and waited > longest:
                    connection.end()

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts what a connection asks; room for an answer is made by ending those that are unread longest."""
        connection = self._of.get(request.get_extra_info("peername"))
        if connection is None:  # it has ended already
            return await handler(request)
        connection.asks += 1
        try:
            response = await handler(request)
            self._make_room_for(response.content_length or 0, connection)
            if isinstance(request.protocol, Answering) and request.protocol.sends_no_more:
                response.force_close()
            return response
        finally:
            connection.asks -= 1
            connection.answered += 1
            connection.since = time.monotonic()

    @web.middleware
    async def take_body(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Has the body come before the handler is called, which then has it at once: a slow sender takes no one's
        place, and is let go of if others come. Raises: RequestError, also if too many began to send just now."""
        connection = self._of.get(request.get_extra_info("peername"))
        if connection is None or request.content.is_eof():
            return await handler(request)
        sending = [each for each in self._swept() if each.sends]
        if len(sending) >= self._bodies:
            slow = [each for each in sending if time.monotonic() - each.since > FRESH]
            if not slow:
                raise RequestError(StatusCode.RESOURCE_EXHAUSTED, f"{len(sending)} requests are being sent; try again")
            self._end_one_of(slow)
        connection.sends, connection.since = True, time.monotonic()
        connection.asks -= 1
        try:
            await asyncio.wait_for(request.read(), BODY)
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"the body did not come within {BODY:g} s") from None
        except (web.RequestPayloadError, ConnectionError) as error:
            raise invalid(f"the body could not be read: {error}") from None
        finally:
            connection.sends = False
            connection.asks += 1
        return await handler(request)

    def _swept(self) -> list[Connection]:
        """Those that have not ended."""
        for connection in [each for each in self._all if each.is_over]:
            self._forget(connection)
        return list(self._all)

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        if self._of.get(connection.address) is connection:  # and not another, since then, of the same address
            del self._of[connection.address]

    def _make_room(self) -> bool:
        """Ends one that nothing is asked by, rather one that never asked, the longest-waiting first; whether there is
        room now."""
        there = self._swept()
        idle = [each for each in there if not each.asks]
        if len(there) >= self._limit and idle:
            self._forget(self._end_one_of(idle))
        return len(self._all) < self._limit

    def _end_one_of(self, some: list[Connection]) -> Connection:
        """Ends the one that has been idle longest, rather one that was never answered, but a fresh one last."""
        fresh = time.monotonic() - FRESH
        worst = min(some, key=lambda each: (each.since > fresh, each.answered > 0, each.since))
        worst.end()
        return worst

    def _make_room_for(self, size: int, asking: Connection) -> None:
        unread = sorted((each for each in self._swept() if each.unread and each is not asking), key=_since)
        total = size + sum(each.unread for each in unread)
        for connection in unread:
            if total <= self._unread:
                return
            total -= connection.unread
            connection.end()


async def _open(
    connection: Connection,
    peer: socket.socket,
    factory: Callable[[], asyncio.BaseProtocol],
    tls: ssl.SSLContext | None,
) -> None:
    with suppress(OSError):  # it was gone, or did not shake hands
        connection.transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            factory, peer, ssl=tls, ssl_handshake_timeout=FIRST if tls else None
        )


def _closed_unless_open(connection: Connection, peer: socket.socket, _: asyncio.Task[None]) -> None:
    """Also where the task was cancelled before it began."""
    if connection.transport is None:
        peer.close()


def _since(connection: Connection) -> float:
    return connection.since


async def listeners(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of the host; of the port 0 at one that is free. Raises: OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listening: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            listening.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.setblocking(False)
            each.bind((address[0], listening[0].getsockname()[1] or address[1], *address[2:]))
            each.listen(BACKLOG)
    except OSError:
        for each in listening:
            each.close()
        raise
    return listening
