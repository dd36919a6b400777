"""The demo models as their scripts make them: found, served, and as good as they say."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from models.contract import Contract
from models.images import decode
from models.repository import scan
from tests.harness import ROOT
from tests.models.conftest import Load

if TYPE_CHECKING:
    from models.execution import LoadedModel

# The first of these to run trains the digits, which takes the better part of a minute on two idle cores.
pytestmark = pytest.mark.timeout(600)

Picture = Pillow.Image


@pytest.fixture(scope="module")
def served(demo_models: Path) -> dict[str, LoadedModel]:
    from models.runtime import load

    return {one.name: load(one.to_json(), {}) for one in scan(demo_models)}


def contract_of(model: LoadedModel) -> Contract:
    return Contract.from_json(model.description)


def run_script(name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd="/")


# -- the small ones ----------------------------------------------------------------------------------------------------


def test_all_four_are_found_and_load(demo_models: Path, served: dict[str, LoadedModel]) -> None:
    assert [(one.name, one.version, one.kind, one.refusal) for one in scan(demo_models)] == [
        ("digits", "1", "keras", None),
        ("dummy", "1", "keras", None),
        ("linear_regression", "1", "saved_model", None),
        ("two_features", "1", "saved_model", None),
    ]
    assert sorted(served) == ["digits", "dummy", "linear_regression", "two_features"]


@pytest.mark.parametrize("name", ["dummy", "linear_regression", "two_features"])
def test_each_answers_its_own_examples(served: dict[str, LoadedModel], name: str) -> None:
    contract = contract_of(served[name])
    assert contract.description
    assert contract.examples
    for example in contract.examples:
        values = example.request.get("features") or [example.request[field.name] for field in contract.fields]
        (output,) = served[name].run([np.array([values], "float32")])
        np.testing.assert_allclose(output, [[example.answer["prediction"]]], rtol=example.tolerance, atol=1e-5)


def test_the_line_is_what_it_was_fitted_to(served: dict[str, LoadedModel]) -> None:
    assert [field.name for field in contract_of(served["linear_regression"]).fields] == ["feature"]
    x = np.array([[-10], [0], [7]], "float32")
    np.testing.assert_allclose(served["linear_regression"].run([x])[0], 3 * x + 2, atol=0.5)


def test_two_features_learned_its_plane_and_has_its_route(served: dict[str, LoadedModel]) -> None:
    contract = contract_of(served["two_features"])
    assert [field.name for field in contract.fields] == ["feature1", "feature2"]
    assert contract.routes == ("/advanced_predict",)
    x = np.random.default_rng(1).uniform(-1.5, 1.5, (50, 2)).astype("float32")
    expected = 2 * x[:, :1] - 3 * x[:, 1:] + 1
    np.testing.assert_allclose(served["two_features"].run([x])[0], expected, atol=0.7)


# -- the digits --------------------------------------------------------------------------------------------------------


def same(picture: Picture) -> Picture:
    return picture


def inverted(picture: Picture) -> Picture:
    return picture.point(lambda level: 255 - level)


def at(side: int, how: Pillow.Resampling) -> Callable[[Picture], Picture]:
    return lambda picture: picture.resize((side, side), how)


def pixels_of(model: LoadedModel, picture: Picture, form: str = "PNG") -> np.ndarray:
    """What the front would send for this picture as a file."""
    file = BytesIO()
    picture.save(file, form)
    image = contract_of(model).image
    assert image is not None
    return decode(file.getvalue(), image, max_pixels=1_000_000)


def classes_of(model: LoadedModel, pictures: list[Picture], form: str = "PNG") -> np.ndarray:
    (scores,) = model.run([np.stack([pixels_of(model, picture, form) for picture in pictures])])
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-4)
    classes: np.ndarray = scores.argmax(axis=1)
    return classes


@pytest.fixture(scope="module")
def held_out() -> tuple[list[Picture], np.ndarray]:
    """The fifth that the script must not train on, split here once more, by hand."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    _, digits, _, classes = train_test_split(
        data.images, data.target, test_size=0.2, stratify=data.target, random_state=0
    )
    return [Pillow.fromarray(np.round(digit / 16 * 255).astype("uint8")) for digit in digits], classes


@pytest.mark.parametrize("invert", [same, inverted], ids=["light on dark", "dark on light"])
@pytest.mark.parametrize(
    "change",
    [same, at(28, Pillow.Resampling.BICUBIC), at(280, Pillow.Resampling.NEAREST), at(280, Pillow.Resampling.BICUBIC)],
    ids=["8x8", "28x28", "280x280 in blocks", "280x280 smoothed"],
)
def test_held_out_digits_are_right_at_any_size_in_either_colour(
    served: dict[str, LoadedModel],
    held_out: tuple[list[Picture], np.ndarray],
    change: Callable[[Picture], Picture],
    invert: Callable[[Picture], Picture],
) -> None:
    pictures, classes = held_out
    assert len(pictures) == 360
    right = classes_of(served["digits"], [invert(change(picture)) for picture in pictures]) == classes
    assert right.mean() >= 0.985


def test_the_description_says_how_many_are_right(
    served: dict[str, LoadedModel], held_out: tuple[list[Picture], np.ndarray]
) -> None:
    pictures, classes = held_out
    right = 100 * np.mean(classes_of(served["digits"], pictures) == classes)
    contract = contract_of(served["digits"])
    assert f"of 360 others it gets {right:.2f} % right" in contract.description
    assert contract.labels == tuple("0123456789")


STROKES = {
    0: [[(50, 5), (20, 15), (10, 50), (20, 85), (50, 95), (80, 85), (90, 50), (80, 15), (50, 5)]],
    1: [[(50, 5), (50, 95)]],
    2: [[(15, 25), (30, 7), (60, 5), (80, 20), (75, 42), (45, 68), (15, 93), (88, 93)]],
    3: [[(15, 12), (50, 5), (80, 20), (70, 42), (42, 48), (75, 56), (85, 75), (60, 94), (15, 88)]],
    4: [[(60, 5), (12, 62), (90, 62)], [(65, 35), (65, 95)]],
    5: [[(80, 7), (25, 7), (20, 45), (55, 40), (82, 55), (80, 80), (50, 95), (15, 87)]],
    6: [[(70, 6), (40, 20), (20, 50), (18, 80), (45, 95), (75, 85), (78, 62), (50, 50), (22, 65)]],
    7: [[(12, 7), (85, 7), (50, 50), (38, 95)]],
    8: [[(50, 50), (25, 35), (28, 12), (50, 5), (73, 13), (75, 35), (50, 50), (20, 68), (22, 88), (50, 95),
         (78, 88), (80, 68), (50, 50)]],
    9: [[(78, 35), (50, 50), (25, 38), (28, 12), (55, 5), (78, 15), (78, 35), (72, 70), (55, 95)]],
}  # fmt: skip


def drawn(digit: int, random: np.random.Generator) -> Picture:
    """Thick round strokes of a mouse in a field of 280x280, of any size, anywhere in it."""
    picture = Pillow.new("L", (280, 280))
    pen = ImageDraw.Draw(picture)
    height, radius = random.uniform(110, 220), random.uniform(7, 13)
    width = height * random.uniform(0.55, 0.85)
    left, top = random.uniform(radius, 280 - radius - width), random.uniform(radius, 280 - radius - height)
    for stroke in STROKES[digit]:
        points = (np.array(stroke) / 100 + random.normal(0, 0.02, (len(stroke), 2))) * (width, height) + (left, top)
        for _ in range(3 if digit not in (1, 7) else 0):  # round the corners
            near, far = points[:-1] * 0.75 + points[1:] * 0.25, points[:-1] * 0.25 + points[1:] * 0.75
            between = np.stack([near, far], 1).reshape(-1, 2)
            points = np.concatenate([points[:1], between, points[-1:]])
        pen.line([(x, y) for x, y in points], fill=255, width=round(2 * radius))
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return picture


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_digits_drawn_with_a_thick_pen_anywhere_are_mostly_right(served: dict[str, LoadedModel], form: str) -> None:
    random = np.random.default_rng(0)
    classes = np.repeat(np.arange(10), 20)
    pictures = [drawn(int(digit), random) for digit in classes]
    assert np.mean(classes_of(served["digits"], pictures, form) == classes) >= 0.9
    assert np.mean(classes_of(served["digits"], [inverted(one) for one in pictures], form) == classes) >= 0.9


def test_the_digits_example_is_a_picture_that_is_classified_right(served: dict[str, LoadedModel]) -> None:
    import base64

    (example,) = contract_of(served["digits"]).examples
    with Pillow.open(BytesIO(base64.b64decode(example.request["image"], validate=True))) as picture:
        assert classes_of(served["digits"], [picture.copy()]).tolist() == [example.answer["predicted_class"]]


# -- the scripts -------------------------------------------------------------------------------------------------------


def test_what_is_there_is_left_alone_without_loading_tensorflow(demo_models: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo_models.rglob("*")}
    ended = run_script("create_demo_models.py", "--out", demo_models)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "create_demo_models: all there\n", "")
    assert {path: path.stat().st_mtime_ns for path in demo_models.rglob("*")} == before


def test_a_half_made_model_is_made_anew_and_nothing_is_left_over(tmp_path: Path) -> None:
    out = tmp_path / "out folder"
    (out / ".unfinished-digits" / "1").mkdir(parents=True)
    (out / "linear_regression" / "1").mkdir(parents=True)
    ended = run_script("create_demo_models.py", "--out", out, "linear_regression")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "linear_regression: made, a SavedModel without signatures" in ended.stdout
    assert [(one.name, one.refusal) for one in scan(out)] == [("linear_regression", None)]
    assert [path.name for path in out.iterdir()] == ["linear_regression"]


def test_force_makes_it_anew_the_same(tmp_path: Path, demo_models: Path, load: Load) -> None:
    shutil.copytree(demo_models / "two_features", tmp_path / "two_features")
    (tmp_path / "two_features" / "1" / "old").touch()
    ended = run_script("create_demo_models.py", "--out", tmp_path, "--force", "two_features")
    assert ended.returncode == 0, ended.stderr
    assert not (tmp_path / "two_features" / "1" / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["two_features"]
    x = np.array([[0.5, -1.5]], "float32")
    first, second = (load(folder / "two_features" / "1").run([x])[0] for folder in (tmp_path, demo_models))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_a_second_run_waits_for_the_first(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    handle = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    command = [sys.executable, str(ROOT / "scripts" / "create_demo_models.py"), "--out", str(tmp_path / "lock")]
    with subprocess.Popen([*command, "linear_regression"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "create_demo_models: waiting for another run to finish\n"
        assert list((tmp_path / "lock").iterdir()) == []
        os.close(handle)
        assert "linear_regression: made" in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize("script", ["create_demo_models.py", "create_dummy_model.py"])
def test_what_cannot_be_written_ends_in_one_line(tmp_path: Path, script: str) -> None:
    (tmp_path / "file").touch()
    place: list[Any] = ["--out", tmp_path / "file" / "x"] if "demo" in script else [tmp_path / "file" / "x.keras"]
    ended = run_script(script, *place)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "Not a directory" in ended.stderr or "File exists" in ended.stderr


@pytest.mark.parametrize(
    ("script", "args", "said"),
    [
        ("create_demo_models.py", ["nonsense"], "there is no demo model nonsense"),
        ("create_dummy_model.py", ["model.h5"], "PATH must end in .keras"),
    ],
)
def test_wrong_arguments_are_explained(script: str, args: list[str], said: str) -> None:
    ended = run_script(script, *args)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_the_dummy_script_makes_the_promised_network(tmp_path: Path, demo_models: Path) -> None:
    import keras

    path = tmp_path / "new folder" / "dummy_model.keras"
    ended = run_script("create_dummy_model.py", path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == f"create_dummy_model: wrote {path}"
    assert [entry.name for entry in path.parent.iterdir()] == ["dummy_model.keras"]
    model = keras.saving.load_model(path)
    assert model.input_shape == (None, 10)
    hidden, last = model.layers
    assert (hidden.units, hidden.activation.__name__, last.units, last.activation.__name__) == (32, "relu", 1, "linear")
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.loss == "mse"
    assert int(model.optimizer.iterations) == 2 * 512 // 32
    demo = keras.saving.load_model(demo_models / "dummy" / "1" / "dummy.keras", compile=False)
    for ours, theirs in zip(model.get_weights(), demo.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_demo_contract_is_plain_json(demo_models: Path) -> None:
    for path in demo_models.glob("*/1/contract.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["description"]
