"""A models.config of TensorFlow Serving, as its documentation writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import LoadError
from models.repository import scan
from models.serving_config import Served, read_config
from tests.models.test_repository import found, saved_model

DOCUMENTED = """
# Two models; the second one with everything.
model_config_list: {
  config: { name: 'my_first_model', base_path: '/serving/my_first_model/', model_platform: 'tensorflow' },
  config {
    name: "my_second_model"
    base_path: "/serving/my_second_model/"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 42 versions: 43 } }
    version_labels { key: 'stable' value: 43 }
    version_labels { key: 'canary' value: 42 }
    logging_config { sampling_config { sampling_rate: 0.1 } }
  }
  config { name: "third" base_path: "third" model_version_policy: { latest { num_versions: 3 } } }
  config { name: "fourth" base_path: "fourth" model_version_policy { all {} } }
}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.config"
    path.write_text(text)
    return path


def test_what_the_documentation_shows_is_read(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, DOCUMENTED)) == {
        "my_first_model": Served("my_first_model", "/serving/my_first_model/", {}),
        "my_second_model": Served(
            "my_second_model",
            "/serving/my_second_model/",
            {"policy": "specific:42,43", "labels": {"stable": 43, "canary": 42}},
        ),
        "third": Served("third", "third", {"policy": "latest:3"}),
        "fourth": Served("fourth", "fourth", {"policy": "all"}),
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model_config_list { config { nam: 'a' } }", '"nam"'),
        ("model_config_list { config { name: 'a' }", "models.config: "),
        ("model_config_list { config { name: 'a' } }", "no base_path"),
        ("model_config_list { config { base_path: 'a' } }", "no name"),
        ("model_config_list {" + 2 * "config { name: 'a' base_path: 'a' }" + "}", "is there twice"),
        (f"# {' ' * 2_000_000}", "larger than 1 MiB"),
    ],
    ids=["unknown", "cut", "no-path", "no-name", "twice", "large"],
)
def test_a_wrong_one_says_what_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(LoadError) as caught:
        read_config(write(tmp_path, text))
    assert reason in caught.value.reason
    assert str(tmp_path) not in caught.value.reason


def test_the_models_are_those_it_names_wherever_they_lay_on_the_other_machine(tmp_path: Path) -> None:
    saved_model(tmp_path / "half_plus_two" / "00000123" / "")
    saved_model(tmp_path / "deep" / "down" / "3")
    saved_model(tmp_path / "not_named" / "1")
    write(
        tmp_path,
        f"""model_config_list {{
        config {{ name: "half" base_path: "/models/half_plus_two" }}
        config {{ name: "down" base_path: "{tmp_path}/deep/down" }}
        config {{ name: "outside" base_path: "/etc" }} }}""",
    )
    assert found(scan(tmp_path)) == [("down", "3", "saved_model", None), ("half", "123", "saved_model", None)]
