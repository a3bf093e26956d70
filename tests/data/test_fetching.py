from __future__ import annotations

import socket
import threading

import pytest

from perspective.data import fetching
from perspective.data.fetching import UnreachableError

REPLIES = {
    "cut off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "too short": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789",
    "no HTTP": b"<html>log in</html>\r\n\r\n",
}


@pytest.mark.parametrize("kind", REPLIES)
def test_a_broken_reply_counts_as_unreachable(tmp_path, plain_network, kind):
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(REPLIES[kind])

    thread = threading.Thread(target=answer)
    thread.start()
    target = tmp_path / "set" / "small.jsonl"
    with pytest.raises(UnreachableError, match="set: not on this machine, and http://.* cannot be reached"):
        fetching._download(f"http://127.0.0.1:{listener.getsockname()[1]}/small.jsonl", target, "0" * 64)
    thread.join()
    listener.close()
    assert not target.parent.exists()
