"""Clients that speak in bytes, and what they cost the front."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.harness import Server

HEAD = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
# What the figures allow; a busy machine gets ten times as much before a test fails.
NOISE = 10


def cpu_s(pid: int) -> float:
    """CPU time of all threads, to the nanosecond where the kernel counts that finely."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def front_of(server: Server) -> int:
    (pid,) = server.children("front")
    return pid


def drain(sock: socket.socket) -> bytes:
    """All that comes until the server closes, or resets."""
    received = b""
    try:
        while data := sock.recv(1 << 20):
            received += data
    except ConnectionResetError:
        pass
    return received
