"""Calibration, and finding routers by kind."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.errors import UnknownKind
from experts.routing.base import Calibration, TrainingSet, load_router, train_router
from tests.contracts.samples import LAW

SHARES = st.floats(0, 1, width=32)


def reference(share: float, slope: float, offset: float) -> float:
    """The formula of the docstring, in 64 bit."""
    clipped = min(max(share, 1e-6), 1 - 1e-6)
    return 1 / (1 + math.exp(-(slope * math.log(clipped / (1 - clipped)) + offset)))


@LAW
@given(share=SHARES, slope=st.floats(0.05, 5), offset=st.floats(-5, 5))
def test_calibration_is_the_sigmoid_of_the_stretched_logit(share: float, slope: float, offset: float) -> None:
    found = Calibration(slope, offset)(np.array([share], np.float32))
    assert found.dtype == np.float32
    # Near 1 the share itself has only 24 bits, and the logit magnifies the last one.
    assert found[0] == pytest.approx(reference(float(np.float32(share)), slope, offset), abs=0.02)
    if share <= 0.99:
        assert found[0] == pytest.approx(reference(share, slope, offset), abs=1e-4)


@LAW
@given(shares=st.lists(SHARES, min_size=2, max_size=20), slope=st.floats(0.05, 5), offset=st.floats(-5, 5))
def test_a_larger_share_is_never_less_likely_to_be_right(shares: list[float], slope: float, offset: float) -> None:
    found = Calibration(slope, offset)(np.array(sorted(shares), np.float32))
    assert (np.diff(found) >= -1e-7).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_the_default_calibration_changes_nothing() -> None:
    shares = np.linspace(0.01, 0.99, 50, dtype=np.float32)
    np.testing.assert_allclose(Calibration()(shares), shares, atol=1e-6)


@pytest.mark.parametrize("slope", [8.0, 30.0])
def test_a_steep_calibration_ends_at_nought_and_one_without_a_warning(slope: float) -> None:
    """The best of eight experts has at least an eighth."""
    found = Calibration(slope)(np.array([0.125, 0.5, 1], np.float32))
    np.testing.assert_allclose(found, [0, 0.5, 1], atol=1e-6)


def test_an_unknown_kind_of_router_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownKind, match=r"unknown router kind 'oracle'; there are: heuristic, neural, random"):
        load_router("oracle", tmp_path)
    with pytest.raises(UnknownKind, match="'oracle'"):
        train_router("oracle", TrainingSet([], [], None, None))
