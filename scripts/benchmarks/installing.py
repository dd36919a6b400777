"""`--install-peers`: a virtual environment for each peer. It sees our TensorFlow, rather than hold 2 GB of its own.

What it installs itself goes before ours. Where the peer's own requirements forbid our versions of numpy and the like,
it gets those that it wants; whether that works with TensorFlow, the check of its answers shows.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence

from peers.catalogue import Peer

from benchmarks.peers import python_of
from benchmarks.rounds import Options

OURS = "zz_ours.pth"  # read last: its folders come behind the peer's own


def install(peers: Sequence[Peer], options: Options) -> list[str]:
    """Make what is missing; the names of those that could not be made."""
    failed = []
    for peer in peers:
        python = python_of(peer)
        if python.exists():
            options.say(f"{peer.name} is there: {python.parent.parent}")
            continue
        options.say(f"installing {peer.name}: {' '.join(peer.packages)}")
        try:
            make(peer)
        except subprocess.CalledProcessError as error:
            failed.append(peer.name)
            last = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
            options.say(f"{peer.name} could not be installed: {' '.join(last)}")
    return failed


def make(peer: Peer) -> None:
    """One environment; it gets its name when it is whole. Raises CalledProcessError."""
    folder = python_of(peer).parent.parent
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    venv.create(unfinished, with_pip=True, clear=True)
    pip = [str(unfinished / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-input", *peer.packages], check=True, capture_output=True)
    site = unfinished / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / OURS).write_text(sysconfig.get_path("purelib") + "\n")
    unfinished.rename(folder)  # programs in bin name the old folder; modules are all that the bench runs
