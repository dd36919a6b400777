"""tf.Example as bytes, held against TensorFlow's own reader and writer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.tf_example import Bytes, Feature, Floats, Ints, serialize

FEATURES = st.one_of(
    st.none(),
    st.lists(st.binary(max_size=200)).map(Bytes),
    st.lists(st.floats(width=32, allow_nan=False)).map(Floats),
    st.lists(st.integers(-(2**63), 2**63 - 1)).map(Ints),
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.text(max_size=150), FEATURES, max_size=5))
def test_tensorflow_reads_what_was_written(features: dict[str, Feature]) -> None:
    import tensorflow as tf

    read = tf.train.Example.FromString(serialize(features)).features.feature
    assert set(read) == set(features)
    for name, feature in features.items():
        match feature:
            case Bytes(values):
                assert list(read[name].bytes_list.value) == values
            case Floats(values):
                assert np.array_equal(np.array(read[name].float_list.value, "f4"), np.array(values, "f4"))
            case Ints(values):
                assert list(read[name].int64_list.value) == values
            case _:
                assert read[name].WhichOneof("kind") is None


def test_it_is_what_tensorflow_writes() -> None:
    import tensorflow as tf

    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[1.0, -2.5]))
    theirs = tf.train.Example(features=tf.train.Features(feature={"x": feature}))
    assert serialize({"x": Floats([1.0, -2.5])}) == theirs.SerializeToString()


def test_a_number_beyond_a_float_is_no_infinity() -> None:
    with pytest.raises(OverflowError):
        serialize({"x": Floats([1e39])})
