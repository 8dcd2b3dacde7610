"""The router that guesses."""

import zlib

import numpy as np

from experts.routing.random_choice import RandomRouter

EXPERTS = ("bank", "code", "earth", "law")


def test_half_goes_to_the_expert_that_the_texts_checksum_names_and_half_to_all_alike() -> None:
    texts = ["", "a", "mortgage", "Größe 👍"]
    scores = RandomRouter(EXPERTS).score(texts, None)
    for row, text in enumerate(texts):
        expected = [0.125] * 4
        expected[zlib.crc32(text.encode()) % 4] = 0.625
        np.testing.assert_array_equal(scores.gate[row], np.array(expected, np.float32))
    np.testing.assert_array_equal(scores.self_assessment, scores.gate)
    np.testing.assert_array_equal(scores.coverage, 1)


def test_the_guesses_spread_over_all_experts() -> None:
    scores = RandomRouter(EXPERTS).score([f"question number {n}" for n in range(2000)], None)
    sent = np.bincount(scores.gate.argmax(axis=1), minlength=4)
    # Four standard deviations of a binomial with 2,000 tries and a quarter each are 78.
    assert (abs(sent - 500) < 78).all()
