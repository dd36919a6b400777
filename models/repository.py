"""What lies on disk: models, their versions, and why one of them cannot be served.

Owns the layouts, the names, and where a `contract.json` is looked for. Knows nothing of what is inside a model: this
runs in the supervisor, so it imports neither TensorFlow nor numpy.

Layouts below a folder of models (TensorFlow Serving's, and single files):

    name/<version>/saved_model.pb, variables/…   a SavedModel
    name/<version>/anything.keras                one Keras file
    name/saved_model.pb, name/anything.keras     without a version folder: version 1
    name.keras                                   version 1
    name.h5, …/anything.h5                       as the .keras files, where the legacy format is allowed

A contract is `contract.json` in the version's folder, else in the model's folder, and for a single file
`name.contract.json` beside it. Hidden files and folders are ignored, and so are other files in a folder of models.
Where that folder holds a `models.config`, the models are those it names (models.serving_config).
Everything is resolved: what a symbolic link would fetch from outside the folder of models is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from models.completeness import KINDS, Kind, file_fault, guarded, saved_model_fault, unreadable, visible
from models.contract_file import read_contract
from models.errors import LoadError
from models.fingerprint import digest
from models.serving_config import FILE as CONFIG
from models.serving_config import Served, read_config

Layout = Literal["models", "model", "version", "file"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION = re.compile(r"[0-9]{1,18}")
HERE = Path(__file__).resolve().parent
DEFAULT_FOLDER = HERE / "saved"
DEFAULT_FILE = HERE / "dummy_model.keras"


@dataclass(frozen=True)
class ModelReference:
    """One version of one model.

    path: absolute; the .keras or .h5 file, or the SavedModel's folder (of a refused one perhaps just where it lies).
    isolate: its contract asks for a worker of its own.
    refusal: why it cannot be served, safe to show; None when nothing is known against it.
    digest: another one whenever its files or its contract have changed.
    rehearsal_path: where logged requests will be that it must be able to answer; None: there are none to try.
    """

    name: str
    version: str
    path: str
    kind: Kind
    contract_path: str | None = None
    isolate: bool = False
    refusal: str | None = None
    digest: str = ""
    rehearsal_path: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-safe dictionary; `from_json` gives an equal reference back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelReference:
        """The inverse of `to_json`."""
        return cls(**data)


class Repository:
    """Where models are looked for: a folder of them, or one that the operator named; each look goes by what is there.

    An entry is a place where a model may be. path: as it was named, so that a link may be led elsewhere later.
    """

    def __init__(self, path: Path, layout: Layout, *, allow_h5: bool = False) -> None:
        self._named = Path.cwd() / path
        self._layout = layout
        self._allow_h5 = allow_h5

    @classmethod
    def folder(cls, path: Path, *, allow_h5: bool = False) -> Repository:
        """A folder of models. Raises LoadError when there is no such folder."""
        if not _existing(path).is_dir():
            raise LoadError(f"{_existing(path).name} is not a folder of models")
        return cls(path, "models", allow_h5=allow_h5)

    @classmethod
    def named(cls, path: Path, *, allow_h5: bool = False) -> Repository:
        """What lies at `path`: a .keras or .h5 file, a SavedModel, a version, a folder of versions or of models.

        Raises LoadError when nothing is there.
        """
        if path.name == "saved_model.pb":
            path = path.parent
        resolved = _existing(path)
        place = _Place(resolved, allow_h5=allow_h5)
        layout: Layout = "models"
        if resolved.is_file():
            layout = "file"
        elif VERSION.fullmatch(resolved.name) and (place.is_saved_model(resolved) or len(place.files(resolved)) == 1):
            layout = "version"
        elif place.is_saved_model(resolved) or place.versions(resolved):
            layout = "model"
        return cls(path, layout, allow_h5=allow_h5)

    @property
    def root(self) -> Path:
        """The folder without which nothing can be said of any model."""
        if self._layout == "file":
            return self._named.parent.resolve()
        resolved = _real(self._named)
        return resolved.parent if self._layout == "version" else resolved

    @property
    def has_many(self) -> bool:
        """Whether it is a folder of models, whose entries come and go."""
        return self._layout == "models"

    @property
    def beside(self) -> Path:
        """The folder for what has to lie near the models and is none."""
        root = self.root
        return root.parent if _Place.is_saved_model(root) else root

    def config(self) -> dict[str, Served] | None:
        """What a models.config says, None where there is none. Raises LoadError when it is wrong."""
        path = self.root / CONFIG
        return read_config(path) if self.has_many and path.is_file() else None

    def entries(self, base_paths: Mapping[str, str] | None = None) -> dict[str, Path]:
        """The entries by what they are called here; all that are there, or those of a models.config by model."""
        if not self.has_many:
            return {self._named.name: self._named}
        if base_paths is not None:
            return {name: self._configured(path) for name, path in base_paths.items()}
        return {entry.name: entry for entry in visible(self.root) if entry.suffix in KINDS or _is_folder(entry)}

    def _configured(self, base_path: str) -> Path:
        """The folder meant by a path that may be another machine's."""
        root = self.root
        path = _real(root / base_path)
        return path if path.is_dir() and path.is_relative_to(root) and path != root else root / Path(base_path).name

    def parts(self, path: Path) -> list[Path]:
        """The files and folders that an entry is read from."""
        if self._layout == "version":
            return [path, path.parent / "contract.json"]
        return [path, path.with_name(f"{path.stem}.contract.json")] if path.suffix in KINDS else [path]

    def read(self, name: str, path: Path) -> list[ModelReference]:
        """The versions at an entry, in any order; none where nothing is left of it."""
        if self._layout == "models":
            return _Place(self.root, allow_h5=self._allow_h5).references(path, name)
        try:
            return self._lone(path)
        except OSError as error:
            return [ModelReference(_tidy(path.stem), "1", str(path), "saved_model", refusal=unreadable(error))]

    def _lone(self, path: Path) -> list[ModelReference]:
        resolved = _real(path)
        if not resolved.exists():
            return []
        if self._layout == "file":
            # The operator named this very file, so a link may lead to it from anywhere; the contract lies beside it.
            place = _Place(resolved.parent, path.parent.resolve(), allow_h5=self._allow_h5)
            return [place.file(resolved, _tidy(path.stem), path.with_name(f"{path.stem}.contract.json"))]
        if self._layout == "version":
            model = resolved.parent
            return [_Place(model, allow_h5=self._allow_h5).version(resolved, model, _tidy(model.name), resolved.name)]
        name = resolved.name if path.name in ("", "..") else path.name
        return list(_Place(resolved, allow_h5=self._allow_h5).model(resolved, _tidy(name)))

    def all(self) -> list[ModelReference]:
        """Every version of every model, by name and ascending version. Raises LoadError for a wrong models.config."""
        config = self.config()
        base_paths = None if config is None else {name: one.base_path for name, one in config.items()}
        return merged(one for name, path in self.entries(base_paths).items() for one in self.read(name, path))


def find(
    model_path: str | None = None, model_dir: str | None = None, *, allow_h5: bool = False
) -> list[ModelReference]:
    """What there is to serve `at` these places. Refused ones are among them, with their reason. Raises LoadError."""
    return at(model_path, model_dir, allow_h5=allow_h5).all()


def at(model_path: str | None = None, model_dir: str | None = None, *, allow_h5: bool = False) -> Repository:
    """Where to look: at `model_path`, else in `model_dir`, else where the scripts of this project put models.

    Raises LoadError when there is nothing at all.
    """
    if model_path:
        found = Repository.named(Path(model_path), allow_h5=allow_h5)
    elif model_dir:
        found = Repository.folder(Path(model_dir), allow_h5=allow_h5)
    elif DEFAULT_FOLDER.is_dir() and scan(DEFAULT_FOLDER, allow_h5=allow_h5):
        found = Repository.folder(DEFAULT_FOLDER, allow_h5=allow_h5)
    else:
        found = Repository.named(DEFAULT_FILE, allow_h5=allow_h5)
    _some(found.all(), found.root)
    return found


def scan(root: Path, *, allow_h5: bool = False) -> list[ModelReference]:
    """Every version of every model in a folder of models, by name and ascending version.

    Raises LoadError when there is no such folder.
    """
    return Repository.folder(root, allow_h5=allow_h5).all()


def single(path: Path, *, allow_h5: bool = False) -> list[ModelReference]:
    """The one model at `path`: a .keras or .h5 file, a SavedModel, or a folder of versions; or else a folder of models.

    The model's name is the file's stem or the folder's name, in the allowed letters. Raises LoadError when nothing is
    there.
    """
    return _some(Repository.named(path, allow_h5=allow_h5).all(), path)


class _Place:
    """One folder of models: what may be read from it, and how an entry becomes references."""

    def __init__(self, *roots: Path, allow_h5: bool) -> None:
        self.roots = roots
        self.allow_h5 = allow_h5

    def references(self, path: Path, name: str) -> list[ModelReference]:
        """Those of one entry of a folder of models; none for what has nothing to do with models."""
        try:
            return list(self._entry(path, name))
        except OSError as error:
            return [ModelReference(path.stem, "1", str(path), "saved_model", refusal=unreadable(error))]

    def _entry(self, path: Path, name: str) -> Iterator[ModelReference]:
        if path.suffix in KINDS and not path.is_dir():
            if path.exists() or path.is_symlink():
                yield self.file(path, path.stem, path.with_name(f"{path.stem}.contract.json"))
        elif path.is_dir():
            yield from self.model(path, name)

    def file(self, path: Path, name: str, contract: Path) -> ModelReference:
        reference = ModelReference(name, "1", str(path), KINDS.get(path.suffix, "keras"))
        return self._checked(reference, lambda: file_fault(path), [contract])

    def model(self, folder: Path, name: str) -> Iterator[ModelReference]:
        """A model's versions; a folder without any is one refused version."""
        versions = self.versions(folder)
        for version in versions:
            yield self.version(version, folder, name, version.name)
        if not versions:
            yield self.version(folder, folder, name, "1")

    def version(self, folder: Path, model_folder: Path, name: str, version: str) -> ModelReference:
        path = folder
        kind: Kind = "saved_model"
        fault: str | None
        if self.is_saved_model(folder):
            fault = guarded(lambda: saved_model_fault(folder))
        elif files := self.files(folder):
            path, kind = files[0], KINDS[files[0].suffix]
            several = "there is more than one model file in its folder"
            fault = several if len(files) > 1 else guarded(lambda: file_fault(path))
        else:
            fault = "there is no saved_model.pb and no .keras file in its folder (is it still being copied?)"
        contracts = [folder / "contract.json", model_folder / "contract.json"]
        # TensorFlow Serving's folders may have leading zeros: 00000123 is version 123.
        return self._checked(ModelReference(name, str(int(version)), str(path), kind), lambda: fault, contracts)

    @staticmethod
    def is_saved_model(folder: Path) -> bool:
        return (folder / "saved_model.pb").exists()

    @staticmethod
    def versions(folder: Path) -> list[Path]:
        return [entry for entry in visible(folder) if VERSION.fullmatch(entry.name) and entry.is_dir()]

    @staticmethod
    def files(folder: Path) -> list[Path]:
        return [entry for entry in visible(folder) if entry.suffix in KINDS]

    def _checked(
        self, reference: ModelReference, fault: Callable[[], str | None], contracts: list[Path]
    ) -> ModelReference:
        """The reference with its path resolved, its contract found, and its refusal if there is any reason for one."""
        path = _real(Path(reference.path))
        contract = next((one for one in contracts if one.exists()), None)
        resolved_contract = None if contract is None else _real(contract)
        reference = replace(
            reference,
            path=str(path),
            contract_path=None if resolved_contract is None else str(resolved_contract),
            digest=digest(path, resolved_contract),
        )
        refusal = self._name_fault(reference) or guarded(lambda: self._escape(path, resolved_contract))
        refusal = refusal or self._h5_fault(reference) or guarded(fault)
        if refusal is None and reference.contract_path is not None:
            try:
                reference = replace(reference, isolate=read_contract(reference.contract_path).get("isolate") is True)
            except LoadError as error:
                refusal = error.reason
        return replace(reference, refusal=refusal)

    @staticmethod
    def _name_fault(reference: ModelReference) -> str | None:
        if NAME.fullmatch(reference.name):
            return None
        return "its name is not made of 1 to 64 letters (a-z), digits, . _ and -, beginning with a letter or a digit"

    def _h5_fault(self, reference: ModelReference) -> str | None:
        if reference.kind != "h5" or self.allow_h5:
            return None
        return "it is in the legacy .h5 format, which is less safe and is served only where that is allowed explicitly"

    def _escape(self, path: Path, contract: Path | None) -> str | None:
        """A reason to refuse when a link leads outside; what a SavedModel's folder holds is looked at too."""
        inside = [path, *([contract] if contract else [])]
        if path.is_dir():
            for folder, folders, files in os.walk(path):
                inside += [_real(Path(folder, one)) for one in folders + files if Path(folder, one).is_symlink()]
        if all(any(one.is_relative_to(root) for root in self.roots) for one in inside):
            return None
        return "a symbolic link leads outside the folder of models"


def _real(path: Path) -> Path:
    """Without links. Unlike Path.resolve it has an answer for a link that leads to itself, too."""
    return Path(os.path.realpath(path))


def _existing(path: Path) -> Path:
    """The resolved path. Raises LoadError when nothing is there."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        if path.name == DEFAULT_FILE.name:
            raise LoadError(f"{path.name} is missing: scripts/create_dummy_model.py makes it") from None
        raise LoadError(f"there is no model: {path.name} is missing") from None


def _some(found: list[ModelReference], where: Path) -> list[ModelReference]:
    if not found:
        raise LoadError(f"there is no model in the folder {where.resolve().name}")
    return found


def _is_folder(path: Path) -> bool:
    """Or may be one, for all we are allowed to see."""
    try:
        return path.is_dir()
    except OSError:
        return True


def _tidy(stem: str) -> str:
    """A stem in the allowed letters: a lone model is served under its own name, and `My Model.keras` is one."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-_.")[:64] or "model"


def merged(found: Iterable[ModelReference]) -> list[ModelReference]:
    """By name and ascending version, all but the first of a name and version refused: `dummy.keras` beside `dummy/1`,
    or `01` beside `1`.
    """
    seen: set[tuple[str, int]] = set()
    result = []
    for one in sorted(found, key=lambda one: (one.name, int(one.version), one.version)):
        key = one.name, int(one.version)
        twin = key in seen and one.refusal is None
        result.append(replace(one, refusal="another model has the same name and version") if twin else one)
        if one.refusal is None:
            seen.add(key)
    return result
