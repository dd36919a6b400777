"""Models that cannot be served: each is refused with a reason that says why and shows nothing else."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import runtime
from models.errors import LoadError
from models.repository import ModelReference
from tests.models.conftest import Load

Zoo = Callable[[str], Path]

REASONS = {
    "with_lambda": "Lambda layer or other code",
    "lambda_in_h5": "Lambda layer or other code",
    "custom_class": "custom class",
    "unbuilt": "does not say what it takes",
    "sparse_input": "sparse or ragged",
    "nested_inputs": "inputs are nested: 'p'",
    "nested_outputs": "outputs are nested: 'a'",
    "not_a_zip": "damaged or incomplete",
    "without_configuration": "damaged or incomplete",
    "without_weights": "damaged or incomplete",
    "damaged_weights": "damaged or incomplete",
    "other_weights": "weights do not fit",
    "unknown_argument": "does not fit this version of Keras",
    "newer_keras": "saved by Keras 99.1.0, which is newer",
    "weights_only": "weights only",
    "garbage": "damaged or incomplete",
    "unknown_operation": "the operation AssignOddVariableOp",
    "without_variables": "a file of the model is missing",
    "truncated_variables": "damaged or incomplete",
    "unknown_rank": "any number of dimensions",
    "no_rows_in": "input 'x' has no row dimension",
    "no_rows_out": "one row for each row of input",
    "one_row_out": "one row for each row of input",
    "twice_the_rows": "one row for each row of input",
    "different_rows": r"different numbers of rows: \[3, 4\]",
    "complex_numbers": "dtype complex64",
    "ragged_input": "sparse or ragged",
    "ragged_signature": "sparse or ragged",
    "ragged_output": "sparse or ragged",
    "no_function": "no signature and no function",
    "untraced": "saved without a trace",
    "constant_output": "output 'nothing' is not a tensor",
    "two_signatures": "name one in its contract: double, triple",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_served_is_refused_with_the_reason(load: Load, zoo: Zoo, name: str) -> None:
    with pytest.raises(LoadError, match=REASONS[name]) as caught:
        load(name, allow_h5=True)
    reason = caught.value.reason
    assert "/" not in reason
    assert "\n" not in reason
    assert len(reason) <= 200


def test_a_missing_file_is_refused(load: Load, tmp_path: Path) -> None:
    for missing in (tmp_path / "gone.keras", tmp_path / "gone"):
        with pytest.raises(LoadError, match="a file of the model is missing"):
            load(missing)


def test_an_unknown_signature_is_refused_with_those_there_are(load: Load) -> None:
    with pytest.raises(LoadError, match=r"no signature 'quadruple'; there are: .*double, triple"):
        load("two_signatures", {"signature": "quadruple"})


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        ("{", "not valid JSON: line 1, column 2"),
        ("[]", "not a JSON object"),
        ({"signature": 7}, "signature must be"),
        ({"fields": ["one"]}, "fields names 1 columns"),
        ({"colour": "rgb"}, "unknown key"),
    ],
    ids=["broken", "a list", "signature", "fields", "unknown key"],
)
def test_a_contract_that_does_not_fit_is_refused(load: Load, contract: Any, reason: str) -> None:
    with pytest.raises(LoadError, match=reason):
        load("sequential", contract)


def test_what_the_repository_refused_stays_refused(zoo: Zoo) -> None:
    reference = ModelReference("zoo", "1", str(zoo("sequential")), "keras", refusal="no, thanks")
    with pytest.raises(LoadError, match="no, thanks"):
        runtime.load(reference.to_json(), {})


def test_the_details_are_logged(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(LoadError):
        load("other_weights")
    assert "The shape of the target variable" in caplog.text
    assert max(len(record.getMessage()) for record in caplog.records) < 4096


def test_too_little_memory_is_said(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    def exhausted(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(keras.saving, "load_model", exhausted)
    with pytest.raises(LoadError, match="not enough memory"):
        load("sequential")


def test_a_failing_kernel_is_found_at_load(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    from models import compiled

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise tf.errors.UnimplementedError(None, None, "no kernel")

    monkeypatch.setattr(compiled.Compiled, "__call__", broken)
    with pytest.raises(LoadError, match="fails on a trial batch"):
        load("sequential")


def test_an_unsafe_keras_is_refused(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras, "__version__", "3.14.0")
    with pytest.raises(LoadError, match=r"Keras 3\.14\.0 is not safe .* 3\.14\.1 or newer"):
        load("sequential")


def test_a_missing_tensorflow_is_said(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    load("sequential")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(LoadError, match="not installed"):
        load("sequential")


def test_one_damaged_copy_does_not_keep_a_whole_one_from_loading(load: Load, zoo: Zoo, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(zoo("bare_function"), copy)
    (copy / "saved_model.pb").write_bytes(b"")
    with pytest.raises(LoadError):
        load(copy)
    assert load("bare_function").description["outputs"]
