"""Which models tell classes apart or take pictures, and what a contract.json may say of labels and images."""

from __future__ import annotations

import math
from typing import Any

import pytest

from models.contract import Contract, Image, Tensor
from models.errors import LoadError
from models.narrowing import class_count, derive_image, is_classifier, narrow

SCORES = Tensor("scores", "float32", (10,))


def model(*inputs: Tensor, outputs: tuple[Tensor, ...] = (SCORES,)) -> Contract:
    return Contract("m", "1", inputs, outputs)


def pixels(*shape: int | None, dtype: str = "float32") -> Contract:
    return model(Tensor("pixels", dtype, shape))


def output(*shape: int | None, dtype: str = "float32") -> Contract:
    return model(Tensor("x", "float32", (2,)), outputs=(Tensor("y", dtype, shape),))


VECTOR = model(Tensor("x", "float32", (2,)))
TWO_INPUTS = model(Tensor("a", "float32", (2,)), Tensor("b", "float32", (2,)))
PICTURE = pixels(28, 28, 1)
A_LOT = ["x"] * 10
LABELS = [str(index) for index in range(10)]


@pytest.mark.parametrize(
    ("contract", "user", "reason"),
    [
        pytest.param(
            VECTOR,
            {"labels": LABELS[:9]},
            "labels names 9 classes, the model's output has 10; name each in order",
            id="too few labels",
        ),
        pytest.param(
            VECTOR, {"labels": "0123456789"}, "labels must be a list of the classes' names", id="labels a string"
        ),
        pytest.param(
            VECTOR,
            {"labels": [*LABELS[:9], 9]},
            "labels must be strings of 1 to 64 printable characters",
            id="labels of numbers",
        ),
        pytest.param(
            VECTOR, {"labels": A_LOT}, 'labels holds "x" twice; each name must be different', id="labels twice"
        ),
        pytest.param(
            output(1),
            {"labels": ["a", "b", "c"]},
            "labels need scores of classes: one float output of shape (k,) with k >= 2, or (1,) and two labels;"
            " this model has 1: y float32 (1,)",
            id="three labels of one score",
        ),
        pytest.param(
            output(5, dtype="int32"), {"labels": LABELS[:5]}, "labels need scores of classes", id="integer scores"
        ),
        pytest.param(output(2, 2), {"labels": ["a", "b"]}, "labels need scores of classes", id="scores of two axes"),
        pytest.param(
            model(Tensor("x", "float32", ()), outputs=(SCORES, SCORES)),
            {"labels": LABELS},
            "labels need scores of classes",
            id="two outputs",
        ),
        pytest.param(PICTURE, {"image": True}, "image must be an object with input, width", id="image no object"),
        pytest.param(
            PICTURE, {"image": {"size": 28}}, 'image: unknown key "size"; use only input, width', id="image key"
        ),
        pytest.param(
            PICTURE,
            {"image": {"width": 32}},
            "image: width 32 does not fit the model's input; write 28 or leave it out",
            id="width",
        ),
        pytest.param(
            PICTURE,
            {"image": {"height": 32}},
            "image: height 32 does not fit the model's input; write 28 or leave it out",
            id="height",
        ),
        pytest.param(
            PICTURE,
            {"image": {"width": "28"}},
            "image: width must be a whole number from 1 to 4096",
            id="width as text",
        ),
        pytest.param(
            pixels(None, None, 3),
            {"image": {"width": 8}},
            "image: the model takes any height; write the height in pixels",
            id="any height",
        ),
        pytest.param(
            pixels(None, None, 3),
            {"image": {"width": 5000, "height": 8}},
            "image: width must be a whole number from 1 to 4096",
            id="too wide",
        ),
        pytest.param(
            PICTURE,
            {"image": {"colour": "rgb"}},
            'image: colour must be "grey" for an input of shape (28, 28, 1)',
            id="colour",
        ),
        pytest.param(
            PICTURE, {"image": {"input": "x"}}, 'image: input must be "pixels", the model\'s only one', id="image input"
        ),
        pytest.param(
            PICTURE,
            {"image": {"scale": 0}},
            "image: scale and offset must be finite numbers, scale not 0",
            id="scale 0",
        ),
        pytest.param(
            PICTURE, {"image": {"scale": True}}, "image: scale and offset must be finite numbers", id="scale a boolean"
        ),
        pytest.param(
            PICTURE,
            {"image": {"offset": math.inf}},
            "image: scale and offset must be finite numbers",
            id="infinite offset",
        ),
        pytest.param(
            PICTURE,
            {"image": {"offset": 10**400}},
            "image: scale and offset must be finite numbers",
            id="offset beyond any float",
        ),
        pytest.param(
            pixels(8, 8, dtype="uint8"),
            {"image": {"scale": 0.5}},
            "image: an input of uint8 takes pixels as they are",
            id="scaled integers",
        ),
        pytest.param(
            pixels(8, 8, dtype="int8"),
            {"image": {}},
            "image: an input of int8 cannot hold pixels of 0 to 255",
            id="int8 pixels",
        ),
        pytest.param(
            pixels(8, 8, dtype="string"),
            {"image": {}},
            "image: an input of string cannot hold pixels",
            id="string pixels",
        ),
        pytest.param(
            pixels(8, 8, 4),
            {"image": {}},
            "image: the input must have shape (h, w), (h, w, 1) or (h, w, 3), not (8, 8, 4)",
            id="four channels",
        ),
        pytest.param(pixels(8), {"image": {}}, "image: the input must have shape (h, w)", id="a vector as picture"),
        pytest.param(pixels(8, 8, None), {"image": {}}, "image: the input must have shape (h, w)", id="any channels"),
        pytest.param(TWO_INPUTS, {"image": {}}, "image needs a model with one input", id="image and more"),
        pytest.param(
            output(3, dtype="int64"), {"image": {}}, "image is for classifiers: one float output", id="no classifier"
        ),
    ],
)
def test_a_mistake_about_labels_or_an_image_is_refused_with_what_to_write_instead(
    contract: Contract, user: Any, reason: str
) -> None:
    with pytest.raises(LoadError) as caught:
        narrow(contract, user)
    assert caught.value.reason.startswith(f"contract.json: {reason}")
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize(
    ("contract", "expected"),
    [
        pytest.param(pixels(28, 28, 1), Image("pixels", 28, 28, "grey"), id="one channel"),
        pytest.param(pixels(28, 20), Image("pixels", 20, 28, "grey"), id="no channel axis"),
        pytest.param(pixels(4, 4096, 3), Image("pixels", 4096, 4, "rgb"), id="three channels"),
        pytest.param(pixels(3, 28, 3), None, id="too low"),
        pytest.param(pixels(28, 4097, 3), None, id="too wide"),
        pytest.param(pixels(28, 28, 2), None, id="two channels"),
        pytest.param(pixels(None, None, 3), None, id="any size"),
        pytest.param(pixels(28, 28, 3, dtype="uint8"), None, id="integer pixels"),
        pytest.param(pixels(28), None, id="a vector"),
        pytest.param(pixels(8, 28, 28, 3), None, id="video"),
        pytest.param(TWO_INPUTS, None, id="two inputs"),
        pytest.param(
            model(Tensor("pixels", "float32", (28, 28)), outputs=(Tensor("y", "float32", (1,)),)), None, id="one score"
        ),
        pytest.param(
            model(Tensor("pixels", "float32", (28, 28)), outputs=(Tensor("y", "float32", (28, 28)),)),
            None,
            id="a picture out",
        ),
        pytest.param(
            model(Tensor("pixels", "float32", (28, 28)), outputs=(Tensor("y", "int64", (10,)),)),
            None,
            id="integers out",
        ),
        pytest.param(model(Tensor("pixels", "float32", (28, 28)), outputs=(SCORES, SCORES)), None, id="two outputs"),
    ],
)
def test_an_image_classifier_is_known_by_its_shapes(contract: Contract, expected: Image | None) -> None:
    assert derive_image(contract) == expected


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, Image("pixels", 28, 28, "grey", 1 / 255, 0.0)),
        ({"width": 28, "height": 28, "colour": "grey", "input": "pixels"}, Image("pixels", 28, 28, "grey")),
        ({"scale": 1 / 127.5, "offset": -1}, Image("pixels", 28, 28, "grey", 1 / 127.5, -1.0)),
    ],
    ids=["all derived", "all written", "from -1 to 1"],
)
def test_an_image_says_only_what_the_shapes_do_not(user: dict[str, Any], expected: Image) -> None:
    assert narrow(PICTURE, {"image": user}).image == expected


def test_a_model_of_any_size_has_its_pictures_resized_to_what_is_written() -> None:
    image = narrow(pixels(None, None, 3), {"image": {"width": 32, "height": 16}}).image
    assert image == Image("pixels", 32, 16, "rgb")


def test_integer_pixels_are_passed_as_they_are() -> None:
    image = narrow(pixels(8, 8, dtype="uint8"), {"image": {}}).image
    assert image is not None
    assert (image.scale, image.offset) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("contract", "labels", "count"),
    [
        (output(3), (), 3),
        (output(3), ("a", "b", "c"), 3),
        (output(1), (), None),
        (output(1), ("no", "yes"), 2),
        (output(None), (), None),
        (output(None), ("a", "b"), 2),
        (output(0), (), None),
        (output(), (), None),
        (output(2, 3), (), None),
        (output(3, dtype="int32"), (), None),
    ],
)
def test_classes_are_counted_by_the_output_and_the_labels(
    contract: Contract, labels: tuple[str, ...], count: int | None
) -> None:
    assert class_count(narrow(contract, {"labels": list(labels)} if labels else {})) == count


def test_a_classifier_is_a_model_with_labels_or_an_image() -> None:
    assert not is_classifier(VECTOR)
    assert is_classifier(narrow(VECTOR, {"labels": LABELS}))
    assert is_classifier(narrow(PICTURE, {"image": {}}))
