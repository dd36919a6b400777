"""The wheel holds the server and nothing else; requirements are stated once; the locks fit them."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
OTHER_FOLDERS = {"build", "dist", "scripts", "tests"}  # beside these and the hidden ones all Python is the server's
LOCKS = ("requirements.lock", "requirements-dev.lock")


def modules() -> set[str]:
    """Every Python file of the server, as it would lie in a wheel."""
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return {
        path.as_posix() for path in files if not path.parts[0].startswith(".") and path.parts[0] not in OTHER_FOLDERS
    }


def requirements(name: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    parsed = (Requirement(line) for line in lines if line and not line.startswith("-r"))
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def locked(name: str) -> dict[tuple[str, str], str]:
    """(package, marker) -> version."""
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; (.+?))? \\$", (ROOT / name).read_text(), re.MULTILINE)
    return {(package, marker): version for package, version, marker in pins}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` would make, built from a copy: setuptools leaves its traces beside the source."""
    home = tmp_path_factory.mktemp("packaging")
    junk = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "saved", "*.keras")
    shutil.copytree(ROOT, home / "source", ignore=junk)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run(
        [*command, "--wheel-dir", home, home / "source"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (built,) = home.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_the_server_with_its_pages_and_neither_tests_nor_scripts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        content = {name for name in archive.namelist() if ".dist-info/" not in name}
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "front" / "static").rglob("*") if path.is_file()}
    assert pages
    assert content == modules() | pages


def test_the_wheel_requires_what_requirements_txt_says(metadata: Message) -> None:
    required = {Requirement(line) for line in metadata.get_all("Requires-Dist", [])}
    assert required == set(requirements("requirements.txt").values())


def test_the_wheel_carries_its_licence_and_readme(metadata: Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert str(metadata.get_payload()).startswith((ROOT / "README.md").read_text()[:40])


def test_the_installed_command_works_away_from_the_source(wheel: Path, metadata: Message, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
    ]
    subprocess.run(command, check=True)
    # Dependencies come from where this test's own do.
    (site_packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    version = subprocess.run(
        [tmp_path / "venv" / "bin" / "inference-server", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert version.returncode == 0, version.stderr
    assert metadata["Version"] in version.stdout


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_has_a_lower_bound_and_a_reason(name: str) -> None:
    for line in (ROOT / name).read_text().splitlines():
        if line and not line.startswith(("#", "-r")):
            assert re.fullmatch(
                r'[a-z0-9-]+(\[[a-z]+\])?>=[\d.]+(; sys_platform == "linux")? +# \w.+|types-[a-z]+>=[\d.]+', line
            ), line


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_fulfils_the_requirements(lock: str) -> None:
    pins = locked(lock)
    for package, requirement in requirements(lock.replace(".lock", ".txt")).items():
        versions = [version for (locked_package, _), version in pins.items() if locked_package == package]
        assert versions, f"{package} is not locked: run scripts/lock"
        assert all(Version(version) in requirement.specifier for version in versions), f"{package}: run scripts/lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_host_and_has_a_hash_for_everything(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z])", text)[1:]
    assert len(entries) == len(locked(lock))
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_development_lock_holds_the_servers_in_the_same_versions() -> None:
    server, development = (locked(lock).items() for lock in LOCKS)
    assert server <= development


def test_the_supported_pythons_are_said_once() -> None:
    """scripts/_setup.sh looks for what pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info < (3, 14)" in (ROOT / "scripts" / "_setup.sh").read_text()


@pytest.mark.parametrize("how", [["-c", "import inference_server"], ["-m", "inference_server"]])
def test_a_foreign_package_of_the_same_name_is_named_in_one_line(how: list[str], tmp_path: Path) -> None:
    """A project with a `models` of its own, such as a Django application, from whose folder ours is started."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *how], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs its own package 'models', but Python finds another one first" in done.stderr.splitlines()[-1]
    assert how[0] == "-c" or len(done.stderr.splitlines()) == 1


def test_nothing_that_is_made_is_kept_in_the_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"], capture_output=True, text=True, cwd=ROOT
    )
    assert listed.stdout == ""
