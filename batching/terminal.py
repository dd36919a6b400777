"""Whether a hang-up means the end: of whoever sits at a terminal it does, of a service it is the word to reload."""

from __future__ import annotations

import os
import signal


def hang_up_ends() -> bool:
    """To be asked at the start: when the signal comes, the terminal is no longer there to be seen.

    Not so under nohup, which has the signal ignored.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
