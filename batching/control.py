"""Messages between the supervisor and its processes: JSON with file descriptors beside it, on a Unix stream socket.

Owns framing and order; what the messages mean is the supervisor's, the worker's and the client's affair.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batching.errors import ConnectionLost

_LENGTH = struct.Struct("<I")
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_FDS_MAX = 250  # the kernel passes 253 at once


def listen_at(path: str) -> socket.socket:
    """A listening socket at `path`, for this user alone. Raises OSError when another server listens there.

    A path that a killed server left behind is taken over.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket():  # anything else is not ours to remove: bind refuses
            _remove_abandoned(path)
        old = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(old)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_abandoned(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, "another server listens there")


class ControlChannel:
    """One end. `send` queues, `flush` writes what the socket takes, `receive` gives whole messages with their fds.

    Descriptors are duplicated by the kernel at the moment of sending: a caller may close its own after `flush` has
    written them, so `send` takes ownership with `close_after=True`.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._out: deque[tuple[memoryview, tuple[int, ...], tuple[socket.socket, ...]]] = deque()
        self._in = bytearray()
        self._fds: deque[int] = deque()

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def close(self) -> None:
        for _, _, owned in self._out:
            for sock in owned:
                sock.close()
        for fd in self._fds:
            os.close(fd)
        self._out.clear()
        self._fds.clear()
        self.socket.close()

    def send(self, message: dict[str, Any], fds: Sequence[int] = (), owned: Sequence[socket.socket] = ()) -> None:
        """Queue one message and try to write it; sockets in `owned` are closed here once they are on their way."""
        if len(fds) > _FDS_MAX:
            raise ValueError("too many descriptors for one message")
        body = json.dumps({**message, "fds": len(fds)}).encode()
        self._out.append((memoryview(_LENGTH.pack(len(body)) + body), tuple(fds), tuple(owned)))
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes now. A lost peer is not an error here: `receive` reports it."""
        while self._out:
            data, fds, owned = self._out[0]
            try:
                sent = socket.send_fds(self.socket, [data], list(fds)) if fds else self.socket.send(data)
            except BlockingIOError:
                return
            except OSError:
                sent = len(data)
            for sock in owned:  # descriptors go with the first byte
                sock.close()
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[sent:], (), ())

    def receive(self) -> list[tuple[dict[str, Any], list[int]]]:
        """Whole messages that have arrived. Raises ConnectionLost at the end of the stream, and for anything else."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 65536, _FDS_MAX)
            except BlockingIOError:
                break
            except OSError as error:
                raise ConnectionLost(str(error)) from None
            self._fds.extend(fds)
            if not data:
                messages = self._take()
                if messages:
                    return messages
                raise ConnectionLost("end of stream")
            self._in += data
            if len(data) < 65536 and not fds:
                break
        return self._take()

    def wait(self, timeout_s: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """Block for exactly one message: for start-up, before there is a loop. Raises ConnectionLost, TimeoutError."""
        self.socket.settimeout(timeout_s)
        try:
            while True:
                need = _LENGTH.size if len(self._in) < _LENGTH.size else _LENGTH.size + self._body_length()
                if len(self._in) >= _LENGTH.size and len(self._in) >= need:
                    return self._take_one()
                data, fds, _, _ = socket.recv_fds(self.socket, need - len(self._in), _FDS_MAX)
                self._fds.extend(fds)
                if not data:
                    raise ConnectionLost("end of stream")
                self._in += data
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectionLost(str(error)) from None
        finally:
            self.socket.setblocking(False)

    def _body_length(self) -> int:
        length = int(_LENGTH.unpack_from(self._in)[0])
        if length > _MESSAGE_BYTES_MAX:
            raise ConnectionLost("not a control message")
        return length

    def _take(self) -> list[tuple[dict[str, Any], list[int]]]:
        messages = []
        while len(self._in) >= _LENGTH.size and len(self._in) >= _LENGTH.size + self._body_length():
            messages.append(self._take_one())
        return messages

    def _take_one(self) -> tuple[dict[str, Any], list[int]]:
        stop = _LENGTH.size + self._body_length()
        body = bytes(self._in[_LENGTH.size : stop])
        del self._in[:stop]
        try:
            message = json.loads(body)
            return message, [self._fds.popleft() for _ in range(message.pop("fds"))]
        except (ValueError, RecursionError, TypeError, AttributeError, LookupError):
            raise ConnectionLost("not a control message") from None
