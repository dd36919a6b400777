"""No process of ours connects to anything but its own sockets: each one tells what it does, by an audit hook."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.asking import get, post
from tests.harness import ROOT, SOON_S, wait_until

# Python imports this in every process that finds it, before anything else.
HOOK = """
import os, sys

def tell(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request",
                 "ftplib.connect", "smtplib.connect", "http.client.connect", "webbrowser.open", "subprocess.Popen",
                 "os.system", "os.posix_spawn", "os.exec"):
        with open(os.environ["AUDIT"], "a") as file:
            file.write(f"{event} {[repr(one)[:300] for one in args]}\\n")

sys.addaudithook(tell)
with open(os.environ["AUDIT"], "a") as file:
    file.write(f"begins\\n")
"""
BODY = {"features": [1.0] * 10}


def test_nothing_is_connected_to_and_nothing_is_started_but_our_own_processes(
    demo_models: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    audit = tmp_path / "audit"
    environment = {
        **os.environ, "PYTHONPATH": str(tmp_path), "AUDIT": str(audit), "WARM_UP_BUDGET_S": "0.5", "FRONTS": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/log.db", "PREDICTION_LOG_DIR": str(tmp_path / "spool"),
    }  # fmt: skip
    entry = str(ROOT / "inference_server.py")
    with subprocess.Popen(
        [sys.executable, entry, str(demo_models), "--default-model", "dummy", "--port", "0"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        try:
            url = process.stdout.readline().split()[-1]
            assert process.stdout.readline().startswith("ready after"), process.stderr.read()
            assert post(url, "/predict", BODY).status == 200
            for hostile in (
                "http://127.0.0.1:9/",
                "file:///etc/passwd",
                "//127.0.0.1/x",
                {"$ref": "http://127.0.0.1:9/"},
            ):
                assert post(url, "/predict", {"features": hostile}).status == 400
                assert post(url, "/classify/digits", {"image": hostile}).status == 400
            assert get(url, "/models").status == 200
            assert get(url, "/metrics").status == 200
            wait_until(lambda: b"_rows_shipped_total 1" in get(url, "/metrics").body, SOON_S, "the row is in the table")
            process.terminate()
            assert process.wait(SOON_S) == 0
        finally:
            process.kill()
            process.stderr.close()
    lines = audit.read_text().splitlines()
    begun = [line for line in lines if line.startswith("begins")]
    assert len(begun) >= 4, "supervisor, front, worker and shipper have told"
    # waitress makes an address of its default, which is all numbers: nobody is asked for it.
    looked_up = "socket.getaddrinfo [\"'0.0.0.0'\""
    done = [line for line in lines if not line.startswith(("begins", looked_up))]
    assert [line for line in done if not line.startswith("subprocess.Popen")] == []
    # The standard library's `platform` asks uname for the processor's name, on TensorFlow's behalf.
    started = [line for line in done if "['uname', '-p']" not in line]
    assert [line for line in started if entry not in line or "--child" not in line] == []
