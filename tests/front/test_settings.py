"""Settings from text: what is taken, and which name a refusal gives."""

from __future__ import annotations

import pytest

from commands.arguments import parse
from front.settings import Settings


def test_the_environment_sets_what_it_names_and_nothing_else() -> None:
    environ = {"PORT": "0", "BATCH_MAX_WAIT_MS": "2.5", "ALLOW_H5": "yes", "MODEL_PATH": "a b", "HOST": "", "PATH": "/"}
    given = Settings.from_environment(environ)
    assert given == Settings(port=0, batch_max_wait_ms=2.5, allow_h5=True, model_path="a b")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("WORKERS", "0"),
        ("BATCH_MAX_SIZE", "1.5"),
        ("BATCH_MAX_WAIT_MS", "-1"),
        ("PREDICT_TIMEOUT_MS", "0"),
        ("PREDICT_TIMEOUT_MS", "nan"),
        ("DRAIN_TIMEOUT_S", "inf"),
        ("ALLOW_H5", "perhaps"),
        ("PREDICTION_LOG_SYNC", "sometimes"),
        ("PREDICTION_LOG_SAMPLE", "1.1"),
        ("PREDICTION_LOG_KEEP_DAYS", "0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_the_settings_name(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=name):
        Settings.from_environment({name: text})


def test_the_databases_password_is_neither_an_option_nor_in_a_repr() -> None:
    assert "canary" not in repr(Settings(database_url="postgresql+pg8000://user:canary@localhost/db"))
    with pytest.raises(SystemExit):
        parse(["--database-url", "postgresql+pg8000://user:canary@localhost/db"], "1")
