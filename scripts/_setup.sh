# shellcheck shell=bash
# What serve, test, check and lock share: one virtual environment in .venv, made once and locked while it is made.
# To be sourced by a script with `set -euo pipefail`. Works with the bash 3.2 of macOS too.

me="scripts/$(basename "$0")"
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamp="$venv/.installed" # one fingerprint a line; written last: without it .venv is half-made

# Progress and complaints go to stderr: stdout belongs to the server and to pytest.
say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            python="$candidate"
            return
        fi
    done
    die "needs Python 3.11, 3.12 or 3.13, and found none on PATH"
}

# locked COMMAND…: runs it while no other set-up runs. The lock lies on file descriptor 9, which the command and all
# that it starts inherit, so a pip that outlives a killed script still holds it. (macOS has no flock command.)
locked() {
    find_python
    {
        "$python" -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print(sys.argv[1] + ": waiting for another set-up to finish", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)' "$me"
        "$@"
    } 9>>"$root/.venv.lock"
}

# "3.11 DIGEST" of a lock file; without one just "3.11". Fails when the Python that .venv was made from is gone.
fingerprint() {
    "$venv/bin/python" -ISc '
import hashlib, sys
version = "%d.%d" % sys.version_info[:2]
print(version, *(hashlib.sha256(open(path, "rb").read()).hexdigest() for path in sys.argv[1:]))' "$@" 2>/dev/null
}

is_installed() {
    local line
    [ -f "$stamp" ] && line="$(fingerprint "$1")" && grep -qxF "$line" "$stamp"
}

# A finished .venv is brought up to date in place, as long as its Python is the one it was filled by.
is_sound() {
    local version
    [ -f "$stamp" ] && version="$(fingerprint)" && grep -qF "$version " "$stamp"
}

make_venv() {
    if [ -e "$venv" ]; then
        say "making .venv anew: it is half-made or belongs to another Python"
        rm -rf "$venv"
    else
        say "making .venv"
    fi
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv"
    else # Debian keeps ensurepip in a package of its own; the pip that is there will do
        "$python" -m venv --without-pip "$venv"
        "$python" -m pip --python "$venv/bin/python" install --quiet pip >&2 ||
            die "needs pip 22.3 or newer, or the ensurepip module (on Debian in the package python3-venv)"
    fi
}

install() {
    local lock="$1" bar=off
    if is_installed "$lock"; then return; fi # by another script, while this one waited
    if ! is_sound; then make_venv; fi
    rm -f "$stamp"
    say "installing $(basename "$lock") (the first time a minute or more: TensorFlow alone is 600 MB)"
    if [ -t 2 ]; then bar=on; fi
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar "$bar" \
        --require-hashes --requirement "$lock" >&2 || die "could not install; the next run starts afresh"
    fingerprint "$root/requirements.lock" >"$stamp.new"
    # requirements-dev.lock holds all that requirements.lock does, in the same versions.
    if [ "$lock" = "$root/requirements-dev.lock" ]; then fingerprint "$lock" >>"$stamp.new"; fi
    mv "$stamp.new" "$stamp"
}

# set_up requirements.lock | requirements-dev.lock: leaves $venv/bin/python with what that lock holds.
set_up() {
    if is_installed "$root/$1"; then return; fi
    locked install "$root/$1"
}

# Installs what requirements-system.txt lists and this machine lacks, or says in one line what will be missing.
set_up_system() {
    local command package reason packages="" missing=""
    while read -r command package reason; do
        case "$command" in "" | "#"*) continue ;; esac
        if ! command -v "$command" >/dev/null; then
            packages="$packages $package"
            missing="$missing, $command ($reason)"
        fi
    done <"$root/requirements-system.txt"
    if [ -z "$packages" ]; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing Debian packages:$packages"
        # shellcheck disable=SC2086  # the packages are words
        if apt-get update --quiet=2 >&2 && DEBIAN_FRONTEND=noninteractive apt-get install \
            --quiet=2 --yes --no-install-recommends -o DPkg::Lock::Timeout=300 $packages >&2; then
            return
        fi
    fi
    say "skipping the tests that need what is not here: ${missing#, }; Debian packages:$packages"
}
