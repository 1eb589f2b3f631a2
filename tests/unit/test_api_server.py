"""The API's listening socket."""

import asyncio
import socket

import pytest

from twin.api.server import ApiAddressUnusable, _listen


def test_an_answer_does_not_wait_for_acknowledgements():
    """Nagle's algorithm is off on accepted connections: header and body leave one after the other."""
    asyncio.run(_accept_one())


async def _accept_one():
    accepted = asyncio.get_running_loop().create_future()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.set_result(transport)

    listener = _listen("127.0.0.1", 0)
    async with await asyncio.get_running_loop().create_server(Protocol, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        transport = await accepted
        connection = transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        writer.close()
        transport.close()


def test_an_address_of_another_machine_is_a_sentence():
    """What cannot be listened on is named with its settings."""
    with pytest.raises(ApiAddressUnusable, match=r"API_HOST and API_PORT 192\.0\.2\.1:0: "):
        _listen("192.0.2.1", 0)
