"""What `score` reads and writes: each kind of file in, each out, and what of a row is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import score
from inference_server import InferenceServer
from models.contract import Contract, Field, Tensor
from tests.commands.desk import keras_file
from tests.commands.score_program import Doubling, Fake

NAMED = Contract(
    "named",
    "1",
    (Tensor("x", "float32", (2,)),),
    (Tensor("y", "float32", (2,)),),
    fields=(Field("age", {"minimum": 0, "maximum": 120}), Field("weight")),
)


class Run:
    """`score` in this process, in a folder of its own. `text`: what came out; `aside`: what did not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model = keras_file(folder / "m" / "1" / "x.keras").parent.parent
        self.client = Doubling(0.0)

    def __call__(self, name: str, content: str | bytes, output: str, contract: Contract | None, *more: str) -> int:
        data = content.encode() if isinstance(content, str) else content
        (self._folder / name).write_bytes(data)
        self._output = self._folder / output
        words = [str(self._model), str(self._folder / name), "-o", str(self._output), "--restart", *more]
        return score.main(words, Fake(self.client, contract))

    @property
    def text(self) -> str:
        return self._output.read_text()

    @property
    def aside(self) -> list[dict[str, Any]]:
        path = self._folder / f"{self._output.stem}.errors.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_columns_are_found_by_name_and_the_others_are_kept_as_they_are(run: Run) -> None:
    content = 'note,weight,age\n"said ""hi"",\nand went",70.5,3\n,1,2\n'
    assert run("in.csv", content, "out.csv", NAMED) == 0
    assert run.text == ('note,weight,age,y[0],y[1]\n"said ""hi"",\nand went",70.5,3,6.0,141.0\n,1,2,4.0,2.0\n')
    assert run("in.csv", content, "out.csv", NAMED, "--only-outputs") == 0
    assert run.text == "y[0],y[1]\n6.0,141.0\n4.0,2.0\n"


def test_a_quoted_cell_may_end_anywhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f'a "{index}"\nb' * (index % 4), index, index % 100) for index in range(300)]
    lines = "".join('"{}",{},{}\n'.format(note.replace('"', '""'), weight, age) for note, weight, age in rows)
    for read_bytes in (7, 64, 1000):
        monkeypatch.setattr("commands.score_source.READ_BYTES", read_bytes)
        assert run("in.csv", f"note,weight,age\r\n{lines}", "out.csv", NAMED) == 0
        found = list(csv.DictReader(run.text.splitlines(keepends=True)))
        assert [(one["note"], float(one["y[0]"])) for one in found] == [(note, age * 2.0) for note, _, age in rows]


def test_what_the_contract_refuses_is_set_aside_with_the_servers_words(run: Run) -> None:
    assert run("in.csv", 'age,weight\n121,1\n30,1\n,1\nNaN,1\n1e99,2\n3,4,5\n"a"b,1\n', "out.csv", NAMED) == 1
    assert run.text == "age,weight,y[0],y[1]\n30,1,60.0,2.0\n"
    assert [one["row"] for one in run.aside] == [1, 3, 4, 5, 6, 7]
    for one, said in zip(run.aside, ("120", "age", "NaN", "120", "3 cells", "expected after"), strict=True):
        assert said in one["message"]


def test_a_value_that_a_cast_would_bring_within_its_range_is_refused_all_the_same(run: Run) -> None:
    assert run("in.csv", "age,weight\n120.0000001,1\n120,1\n", "out.csv", NAMED) == 1
    assert [one["row"] for one in run.aside] == [1]
    rows = np.array([[120.0000001, 1], [120, 1]])
    np.save(run._folder / "in.npy", rows)
    assert run("in.npy", (run._folder / "in.npy").read_bytes(), "out.npy", NAMED) == 1
    assert np.load(run._output).tolist() == [[240.0, 2.0]]


def test_lines_are_answered_as_the_server_answers_them(run: Run) -> None:
    content = (
        '{"features": [1, 2]}\n'
        '{"age":3,"weight":4}\n'
        "\n"
        '{"instances": [[1, 2], [3, 4]]}\n'
        '{"features": [1, 2],\n'
        '{"features": [1, 2], "features": [1, 2]}\n'
        "[1]\n"
        '{"features": [5, 6]}'
    )
    assert run("in.jsonl", content, "out.jsonl", NAMED) == 1
    assert [json.loads(line) for line in run.text.splitlines()] == [
        {"ok": True, "prediction": [2, 4], "model_version": "1"},
        {"ok": True, "prediction": [6, 8], "model_version": "1"},
        {"ok": True, "predictions": [[2, 4], [6, 8]], "model_version": "1"},
        {"ok": True, "prediction": [10, 12], "model_version": "1"},
    ]
    assert [(one["row"], one["input"]) for one in run.aside] == [
        (4, '{"features": [1, 2],'),
        (5, '{"features": [1, 2], "features": [1, 2]}'),
        (6, "[1]"),
    ]


def test_a_body_that_two_lines_make_is_none(run: Run) -> None:
    assert run("in.jsonl", '{"features":[1,2],\n[3,4]}\n', "out.jsonl", None) == 1
    assert [one["row"] for one in run.aside] == [1, 2]


def test_many_lines_alike_cost_one_call_and_are_answered_alike(run: Run) -> None:
    content = "".join(f'{{"features":[{row},0.5,{row % 7}]}}\n' for row in range(2000))
    assert run("in.jsonl", content, "out.jsonl", None) == 0
    assert run.client.calls == 1
    answers = [json.loads(line)["prediction"] for line in run.text.splitlines()]
    assert answers == [[row * 2, 1.0, row % 7 * 2] for row in range(2000)]


@pytest.mark.parametrize(
    ("name", "content", "output", "said"),
    [
        ("in.csv", "1,2\n3,4\n", "out.csv", "has no header"),
        ("in.csv", "age,height\n3,4\n", "out.csv", "has no column 'weight'"),
        ("in.csv", "age,age\n3,4\n", "out.csv", "names 'age' twice"),
        ("in.csv", b"\xff\xfe,weight\n", "out.csv", "is not UTF-8"),
        ("in.txt", "", "out.csv", "in.txt must be a .csv, .jsonl or .npy file"),
        ("in.csv", "age,weight\n", "out.txt", "out.txt must be a .csv, .jsonl or .npy file"),
        ("in.npy", "nonsense", "out.npy", "in.npy cannot be read"),
    ],
    ids=["no-header", "no-column", "twice", "no-text", "no-input", "no-output", "no-array"],
)
def test_a_file_that_does_not_fit_is_told_before_anything_is_written(
    run: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: str | bytes, output: str, said: str
) -> None:
    assert run(name, content, output, NAMED) in (1, 2)
    err = capfd.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_several_outputs_are_columns_with_their_places(run: Run) -> None:
    lone = Contract("m", "1", (Tensor("a", "float32", ()),), (Tensor("y", "float32", ()),))
    assert run("in.csv", "y,a\n7,1\n8,2\n", "out.csv", lone) == 0
    assert run.text == "y,a,predicted_y\n7,1,2.0\n8,2,4.0\n"
    assert run("in.csv", "a\n1\n", "out.jsonl", lone) == 0
    assert json.loads(run.text)["prediction"] == 2.0


def test_an_empty_file_has_an_empty_answer(run: Run) -> None:
    assert run("in.csv", "age,weight\n", "out.csv", NAMED) == 0
    assert run.text == "age,weight,y[0],y[1]\n"
    assert run("in.jsonl", "", "out.jsonl", NAMED) == 0
    assert run.text == ""
    assert run("in.csv", "age,weight\n", "out.npy", NAMED) == 0
    assert np.load(run._output).shape == (0, 2)


# ---------------------------------------------------------------------------------------------- real models


@pytest.fixture(scope="module")
def server(demo_models: Path) -> Iterator[InferenceServer]:
    with InferenceServer(demo_models) as running:
        yield running


@pytest.mark.parametrize("model", ["dummy", "two_features", "linear_regression"])
def test_a_real_models_answers_are_those_of_single_requests(
    server: InferenceServer, demo_models: Path, tmp_path: Path, model: str
) -> None:
    contract = server.contract(model)
    assert contract is not None
    (columns,) = contract.inputs[0].shape
    names = [field.name for field in contract.fields] or [f"c{index}" for index in range(columns or 0)]
    rows = np.random.default_rng(5).normal(size=(3000, columns or 0)).astype("float32")
    np.save(tmp_path / "in.npy", rows)
    (tmp_path / "in.csv").write_text(
        ",".join(names) + "\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())
    )
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"features": row}) + "\n" for row in rows.tolist()))
    for kind in ("npy", "csv", "jsonl"):
        words = [str(demo_models / model), str(tmp_path / f"in.{kind}"), "-o", str(tmp_path / f"out.{kind}")]
        assert score.main(words, lambda path, **settings: nullcontext(server)) == 0
    found = np.load(tmp_path / "out.npy").reshape(3000)
    table = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))[1:]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert np.allclose([float(row[-1]) for row in table], found, rtol=1e-5, atol=1e-6)
    assert np.allclose([line["prediction"] for line in lines], found, rtol=1e-5, atol=1e-6)
    for place in (0, 1, 1500, 2999):
        alone = server.predict(model, {"features": rows[place].tolist()})
        assert found[place] == pytest.approx(alone, rel=1e-4, abs=1e-5)
