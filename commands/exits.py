"""How commands end: every exit code, once. Knows nothing else, so that whatever starts quickly may import it."""

from __future__ import annotations

OK, WRONG, USAGE, NO_MODEL, NO_ADDRESS, INTERRUPTED = 0, 1, 2, 3, 4, 130
# For whoever asks another server: nobody is at its address.
NOBODY = NO_ADDRESS

EXIT_CODES = {
    OK: "all is well",
    WRONG: "something is wrong with what was asked about, and stderr says what",
    USAGE: "the command or a setting makes no sense",
    NO_MODEL: "there is no model that can be served",
    NO_ADDRESS: "the address cannot be listened at, or nobody answers there",
    INTERRUPTED: "Ctrl-C",
}
