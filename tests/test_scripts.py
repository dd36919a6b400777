"""scripts/serve and scripts/test, run for real in a copy of the repository that is small enough to set up in seconds.

The copy lies on a path with a space. Its server, demo models and packages are stand-ins that say what happened to
them; Python, pip, virtual environments, locks and signals are real. No package comes from a network.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pip
import pytest

ROOT = Path(__file__).parent.parent
DEMO_MODELS = ("digits", "dummy", "linear_regression", "two_features")

SERVER = """\
import json, os, sys
import served_with
names = ("MODEL_DIR", "MODEL_PATH", "DEFAULT_MODEL")
print(json.dumps({
    "args": sys.argv[1:], "pid": os.getpid(), "cwd": os.getcwd(), "served_with": served_with.VERSION,
    "environment": {name: os.environ[name] for name in names if name in os.environ},
}))
"""
CREATE_DEMO_MODELS = f"""\
from pathlib import Path
import tested_with
saved = Path(__file__).parent.parent / "models" / "saved"
for name in {DEMO_MODELS}:
    (saved / name).mkdir(parents=True)
"""
# A virtual environment gets its pip as a link to ours, which saves the seconds that unpacking one takes.
QUICK_PYTHON = f"""\
#!/bin/sh
case "$*" in
*"import ensurepip"*) exit 0 ;;
"-m venv "*)
    "{os.path.realpath(sys.executable)}" -m venv --without-pip "$3"
    cd "$3"/lib/python3.*/site-packages
    exec ln -s "{Path(pip.__file__).parent}" pip
    ;;
esac
exec "{os.path.realpath(sys.executable)}" "$@"
"""
PYTEST = "import json, os, sys; print(json.dumps({'args': sys.argv[1:], 'cwd': os.getcwd()}))"


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Copy:
    """A small copy of the repository; `packages` is all that its pip can see."""

    def __init__(self, home: Path) -> None:
        self.root = home / "a clone"
        self.packages = home / "packages"
        self.elsewhere = home / "elsewhere"
        self.commands = home / "commands"  # first on PATH
        for folder in (self.root, self.packages, self.elsewhere, self.commands):
            folder.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        (self.root / "inference_server.py").write_text(SERVER)
        (self.root / "scripts" / "create_demo_models.py").write_text(CREATE_DEMO_MODELS)
        (self.root / "requirements-system.txt").write_text("# command package reason\nbash bash runs this\n")
        executable(self.commands / "python3.11", QUICK_PYTHON)
        self.lock("requirements.lock", served_with="1.0")
        self.lock("requirements-dev.lock", served_with="1.0", tested_with="1.0", pytest="1.0")

    def lock(self, name: str, **versions: str) -> None:
        """Write a lock of stand-in packages, each a module that knows its VERSION."""
        lines = []
        for package, version in versions.items():
            wheel = self.packages / f"{package}-{version}-py3-none-any.whl"
            if not wheel.exists():
                info = f"{package}-{version}.dist-info"
                with zipfile.ZipFile(wheel, "w") as archive:
                    archive.writestr(f"{package}.py", PYTEST if package == "pytest" else f"VERSION = '{version}'")
                    archive.writestr(
                        f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
                    )
                    archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                    archive.writestr(f"{info}/RECORD", "")
            lines.append(f"{package}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
        (self.root / name).write_text("".join(lines))

    def add_pip(self) -> None:
        """Offer our own pip as a wheel, for where the Python to be used has no ensurepip."""
        ours = importlib.metadata.distribution("pip")
        with zipfile.ZipFile(self.packages / f"pip-{ours.version}-py3-none-any.whl", "w") as archive:
            for file in ours.files or ():
                if ".." not in file.parts and file.suffix != ".pyc":
                    archive.write(file.locate(), file)

    def start(self, script: str, *args: str, **environment: str) -> subprocess.Popen[str]:
        """Start scripts/<script> from another folder, as the leader of a process group of its own."""
        ours = ("MODEL_", "DEFAULT_MODEL", "PIP_", "PYTHON", "VIRTUAL_ENV", "COV")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.packages.as_uri(), "PIP_CONFIG_FILE": os.devnull}
        path = {"PATH": f"{self.commands}:{os.environ['PATH']}"}
        return subprocess.Popen(
            [self.root / "scripts" / script, *args],
            cwd=self.elsewhere,
            env=inherited | pip | path | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *args: str, **environment: str) -> Ended:
        """As `start`, to the end."""
        return Ended(self.start(script, *args, **environment))


class Ended:
    """What a script said and did; `answer` is the JSON line of the stand-in that it ended in."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self.out, self.err = process.communicate(timeout=100)
        self.code = process.returncode

    @property
    def answer(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)  # so nothing but the stand-in has written to stdout

    def said(self, text: str) -> bool:
        return text in self.err


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Copy, Ended]:
    """A copy that has served once; tests that share it leave it as it was."""
    copy = Copy(tmp_path_factory.mktemp("served"))
    (copy.commands / "python3.11").unlink()  # with the machine's own Python, nothing left out
    copy.add_pip()
    return copy, copy.run("serve", "--flag", "two words")


def test_the_first_start_sets_up_and_serves_the_demo_models(served: tuple[Copy, Ended]) -> None:
    copy, first = served
    assert first.answer["args"] == ["--flag", "two words"]
    assert first.answer["environment"] == {"MODEL_DIR": f"{copy.root}/models/saved", "DEFAULT_MODEL": "dummy"}
    assert [line for line in first.err.splitlines() if line.startswith("scripts/serve: ")] == [
        "scripts/serve: making .venv",
        "scripts/serve: installing requirements-dev.lock (the first time a minute or more: TensorFlow alone is 600 MB)",
        "scripts/serve: making the demo models",
    ]


def test_the_server_takes_the_place_of_the_script(served: tuple[Copy, Ended]) -> None:
    """Same process, so that signals and exit codes are its own; same folder, so that relative ARGS mean the same."""
    copy, first = served
    assert first.answer["pid"] == first.pid
    assert first.answer["cwd"] == str(copy.elsewhere)


def test_a_second_start_does_nothing_twice(served: tuple[Copy, Ended]) -> None:
    second = served[0].run("serve")
    assert second.answer["served_with"] == "1.0"
    assert second.err == ""


def test_a_second_start_is_quick(served: tuple[Copy, Ended]) -> None:
    """At most 0.2 s before the server's own start; the best of five, since other tests share the machine."""

    def seconds_until_the_end(command: list[str | Path]) -> float:
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - begin

    root = served[0].root
    with_script = min(seconds_until_the_end([root / "scripts" / "serve"]) for _ in range(5))
    python = root / ".venv" / "bin" / "python"
    without = min(seconds_until_the_end([python, root / "inference_server.py"]) for _ in range(5))
    assert with_script - without < 0.2


def test_the_default_model_of_the_environment_wins(served: tuple[Copy, Ended]) -> None:
    assert served[0].run("serve", DEFAULT_MODEL="digits").answer["environment"]["DEFAULT_MODEL"] == "digits"


@pytest.fixture
def without_demo_models(served: tuple[Copy, Ended]) -> Iterator[Copy]:
    copy, _ = served
    saved = copy.root / "models" / "saved"
    aside = saved.rename(saved.with_name("aside"))
    yield copy
    shutil.rmtree(saved, ignore_errors=True)
    aside.rename(saved)


@pytest.mark.parametrize("setting", ["MODEL_PATH", "MODEL_DIR"])
def test_models_named_in_the_environment_need_no_demo_models(without_demo_models: Copy, setting: str) -> None:
    ended = without_demo_models.run("serve", **{setting: "/some/models"})
    assert ended.answer["environment"] == {setting: "/some/models"}
    assert not (without_demo_models.root / "models" / "saved").exists()


@pytest.mark.parametrize("args", [["my model.keras"], ["--port", "0", "my model.keras"], ["--model-dir=x"]], ids=str)
def test_models_named_in_the_arguments_need_no_demo_models(without_demo_models: Copy, args: list[str]) -> None:
    (without_demo_models.elsewhere / "my model.keras").touch()
    ended = without_demo_models.run("serve", *args)
    assert ended.answer["args"] == args
    assert ended.answer["environment"] == {}
    assert not (without_demo_models.root / "models" / "saved").exists()


def test_missing_demo_models_are_made_again(without_demo_models: Copy) -> None:
    ended = without_demo_models.run("serve", "--port", "0")
    assert ended.answer["environment"]["DEFAULT_MODEL"] == "dummy"
    assert {path.name for path in (without_demo_models.root / "models" / "saved").iterdir()} == set(DEMO_MODELS)


def test_other_models_need_no_test_packages(copy: Copy) -> None:
    copy.run("serve", MODEL_DIR="/some/models").answer  # noqa: B018  # asserts that it worked
    installed = {path.name for path in copy.root.glob(".venv/lib/python*/site-packages/*.py")}
    assert "served_with.py" in installed
    assert "tested_with.py" not in installed


def test_two_at_once_set_up_once(copy: Copy) -> None:
    both = [Ended(process) for process in [copy.start("serve"), copy.start("serve")]]
    assert all(ended.answer["served_with"] == "1.0" for ended in both)
    for step in ("making .venv", "installing", "making the demo models"):
        assert sum(ended.said(step) for ended in both) == 1, step
    assert any(ended.said("waiting for another set-up") for ended in both)


def test_a_set_up_that_was_killed_heals(copy: Copy) -> None:
    process = copy.start("serve")
    assert process.stderr is not None
    for line in process.stderr:
        if "installing" in line:  # pip has yet to start
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    half_made = copy.root / ".venv" / "half-made"
    half_made.touch()

    ended = copy.run("serve")
    assert ended.answer["served_with"] == "1.0"
    assert ended.said("making .venv anew")
    assert not half_made.exists()


def test_a_failed_installation_ends_the_start_and_the_next_one_heals(copy: Copy) -> None:
    lock = copy.root / "requirements-dev.lock"
    good = lock.read_text()
    lock.write_text(good.replace("sha256:", "sha256:0000")[: len(good)])
    failed = copy.run("serve")
    assert failed.code == 1
    assert failed.out == ""
    assert failed.said("could not install")

    lock.write_text(good)
    assert copy.run("serve").answer["served_with"] == "1.0"


def test_failing_demo_models_end_the_start(without_demo_models: Copy) -> None:
    script = without_demo_models.root / "scripts" / "create_demo_models.py"
    script.write_text("raise SystemExit(7)")
    try:
        ended = without_demo_models.run("serve")
        assert (ended.code, ended.out) == (7, "")
    finally:
        script.write_text(CREATE_DEMO_MODELS)


def test_a_new_lock_is_installed_into_the_old_environment(copy: Copy) -> None:
    copy.run("serve").answer  # noqa: B018  # asserts that it worked
    kept = copy.root / ".venv" / "kept"
    kept.touch()
    copy.lock("requirements.lock", served_with="2.0")
    copy.lock("requirements-dev.lock", served_with="2.0", tested_with="1.0", pytest="1.0")
    ended = copy.run("serve")
    assert ended.answer["served_with"] == "2.0"
    assert kept.exists()
    assert not ended.said("making .venv")


def test_an_environment_whose_python_has_gone_is_made_anew(copy: Copy) -> None:
    copy.run("serve").answer  # noqa: B018  # asserts that it worked
    python = copy.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python")
    ended = copy.run("serve")
    assert ended.answer["served_with"] == "1.0"
    assert ended.said("making .venv anew")


def test_without_a_fitting_python_one_line_says_so(copy: Copy) -> None:
    for command in ("bash", "basename", "dirname"):
        (copy.commands / command).symlink_to(shutil.which(command) or command)
    executable(copy.commands / "python3.11", "#!/bin/sh\nexit 1\n")  # as one that is too old
    ended = copy.run("serve", PATH=str(copy.commands))
    assert ended.code == 1
    assert ended.err == "scripts/serve: needs Python 3.11, 3.12 or 3.13, and found none on PATH\n"


def test_a_python_without_ensurepip_will_do(copy: Copy) -> None:
    """Debian ships ensurepip in a package of its own. pip itself then comes from the index: here, a wheel of it."""
    copy.add_pip()
    real = os.path.realpath(sys.executable)
    no_ensurepip = f'#!/bin/sh\ncase "$*" in *"import ensurepip"*) exit 1;; esac\nexec "{real}" "$@"\n'
    executable(copy.commands / "python3.11", no_ensurepip)
    assert copy.run("serve").answer["served_with"] == "1.0"


def test_without_arguments_the_whole_suite_is_run(served: tuple[Copy, Ended]) -> None:
    copy, _ = served
    assert copy.run("test").answer == {"args": [], "cwd": str(copy.root)}


def test_arguments_of_test_go_to_pytest(served: tuple[Copy, Ended]) -> None:
    assert served[0].run("test", "-k", "two words").answer["args"] == ["-k", "two words"]


@pytest.fixture
def lacking(served: tuple[Copy, Ended]) -> Iterator[Copy]:
    """The served copy, with a tool on its list that no machine has, and stand-ins for id and apt-get."""
    copy, _ = served
    listed = copy.root / "requirements-system.txt"
    before = listed.read_text()
    listed.write_text(before + "no-such-tool no-such-package  hammers servers\n")
    executable(
        copy.commands / "apt-get", f'#!/bin/sh\necho "$@" >>"{copy.elsewhere}/apt-get"\nexit ${{APT_FAILS:-0}}\n'
    )
    executable(copy.commands / "id", "#!/bin/sh\necho $USER_ID\n")
    yield copy
    listed.write_text(before)
    for path in (*copy.commands.iterdir(), copy.elsewhere / "apt-get"):
        path.unlink(missing_ok=True)


def test_a_missing_tool_is_installed_by_root_on_debian(lacking: Copy) -> None:
    ended = lacking.run("test", USER_ID="0")
    assert ended.answer["args"] == []
    assert ended.err == "scripts/test: installing Debian packages: no-such-package\n"
    update, install = (lacking.elsewhere / "apt-get").read_text().splitlines()
    assert "update" in update
    assert install.startswith("install")
    assert install.endswith(" no-such-package")


@pytest.mark.parametrize("environment", [{"USER_ID": "1000"}, {"USER_ID": "0", "APT_FAILS": "100"}], ids=str)
def test_a_tool_that_cannot_be_installed_is_named_in_one_line(lacking: Copy, environment: dict[str, str]) -> None:
    ended = lacking.run("test", **environment)
    assert ended.answer["args"] == []
    assert ended.err.splitlines()[-1] == (
        "scripts/test: skipping the tests that need what is not here: "
        "no-such-tool (hammers servers); Debian packages: no-such-package"
    )


def test_every_script_has_its_line_in_the_readme() -> None:
    readme = (ROOT / "scripts" / "README.md").read_text()
    scripts = {path.name for path in (ROOT / "scripts").iterdir() if path.is_file()}
    scripts -= {"README.md"} | {name for name in scripts if name.startswith(("_", "."))}
    scripts -= {f"{name}.py" for name in scripts}  # bench.py is the body of bench
    described = {line.split("`")[1].split()[0] for line in readme.splitlines() if line.startswith("| `")}
    assert described == scripts


@pytest.mark.parametrize("path", [".ci/run", "scripts/serve", "scripts/test", "scripts/check", "scripts/lock"])
def test_scripts_can_be_run_and_stop_at_the_first_error(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)
    assert "\nset -euo pipefail\n" in (ROOT / path).read_text()
