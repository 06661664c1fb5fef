"""Item vectors from counts, against a dense decomposition."""

import numpy as np
import pytest

from tfcorr.data.histories import Histories
from tfcorr.data.spectral import SIZE, spectral_vectors
from tfcorr.data.transitions import count_transitions


def histories(sequences):
    lengths = [len(each) for each in sequences]
    return Histories(
        [f"u{u}" for u in range(len(sequences))], np.concatenate(sequences).astype(np.int32), np.cumsum([0, *lengths])
    )


def two_worlds(users=80):
    """Items 1 to 10 and 11 to 20 never meet; 21 has no pair in training."""
    rng = np.random.default_rng(0)
    return histories([rng.integers(1, 11, 8) + 10 * (user % 2) for user in range(users)])


def test_items_that_meet_lie_together_and_others_apart():
    vectors = spectral_vectors(count_transitions(two_worlds(), 21, 3), 4, seed=1)
    assert vectors.shape == (22, 4)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors[1:21], axis=1), SIZE * 2, rtol=1e-5)
    assert not vectors[[0, 21]].any()
    directions = vectors[1:21] / np.linalg.norm(vectors[1:21], axis=1, keepdims=True)
    cosines = directions @ directions.T
    within, between = cosines[:10, :10].mean(), np.abs(cosines[:10, 10:]).max()
    assert within > 0.5
    assert between < 0.1


@pytest.mark.parametrize("dim", [3, 40])
def test_vectors_are_the_dense_decompositions_but_for_rotation(dim):
    """Their inner products, which rotations leave alone, are those of the largest eigenvalues by NumPy, rows scaled to
    one length."""
    data, items = two_worlds(), 20
    transitions = count_transitions(data, items, 3)
    counts = np.zeros((items + 1, items + 1))
    for key, users in zip(transitions.keys, transitions.users, strict=True):
        counts[divmod(int(key), items + 1)] += users
    counts = (counts + counts.T)[1:, 1:]
    degree = counts.sum(axis=1)
    near = np.log1p(counts * np.sqrt(degree.sum()) / np.outer(degree, degree) ** 0.75)
    eigenvalues, eigenvectors = np.linalg.eigh(near)
    kept = min(dim, items - 1)
    expected = eigenvectors[:, -kept:] * np.sqrt(np.maximum(eigenvalues[-kept:], 0))
    expected *= SIZE * dim**0.5 / np.linalg.norm(expected, axis=1, keepdims=True)
    found = spectral_vectors(transitions, dim, seed=1)[1:]
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=0.03 * SIZE**2 * dim)
    np.testing.assert_array_equal(found, spectral_vectors(transitions, dim, seed=1)[1:])


def test_a_catalogue_of_one_or_two_items_has_vectors_too():
    assert spectral_vectors(count_transitions(histories([[1, 1, 1, 1, 1]]), 1, 3), 4, seed=1).shape == (2, 4)
    assert np.isfinite(spectral_vectors(count_transitions(histories([[1, 2, 1, 2, 1]]), 2, 3), 4, seed=1)).all()
