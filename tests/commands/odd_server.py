"""A server of a few lines that answers each POST as the test says, byte by byte, and counts them; a GET gets a 404."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from commands.load_job import Job

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
# (number of the request from 0, its body) -> the answer, and whether the connection stays
Answers = Callable[[int, bytes], tuple[bytes, bool]]


class OddServer:
    """answer: see Answers. resets: a connection that does not stay ends with a reset.

    bodies, heads: what it was asked, in order. connections: how many it has taken.
    """

    def __init__(self, answer: Answers, *, resets: bool) -> None:
        self._resets = resets
        self.answer = answer
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                self._listener.close()
                return
            self.connections += 1
            self._open.append(sock)
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    data += _some(sock)
                head, _, data = data.partition(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    sock.sendall(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
                    continue
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                while len(data) < size:
                    data += _some(sock)
                body, data = data[:size], data[size:]
                with self._lock:
                    number = len(self.bodies)
                    self.heads.append(head)
                    self.bodies.append(body)
                answer, stays = self.answer(number, body)
                sock.sendall(answer)
                if not stays:
                    if self._resets:
                        time.sleep(0.002)  # until the answer is read: a reset takes with it what is not
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return

    def stop_listening(self) -> None:
        """Take no more connections; those there are go on. The thread that accepts hears of it, and closes."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self.stop_listening()
        self._threads[0].join()  # then nobody comes any more whose connection could be missed here
        for sock in self._open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionResetError
    return data


@contextmanager
def odd_server(answer: Answers = lambda number, body: (OK, True), *, resets: bool = False) -> Iterator[OddServer]:
    """One for the length of the block."""
    server = OddServer(answer, resets=resets)
    try:
        yield server
    finally:
        server.close()


def request(server: OddServer, body: bytes = b"{}") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s" % (server.url[7:].encode(), len(body), body)


def job(server: OddServer, *bodies: bytes, **more: object) -> Job:
    """A load on it: short windows, two connections."""
    from commands.bench_target import in_base64

    requests = in_base64([request(server, body) for body in bodies or (b"{}",)])
    told = {"window_s": 0.1, "connections": 2, **more}
    return Job(int(socket.AF_INET), server.address, requests, **told)  # type: ignore[arg-type]
