"""Item vectors to start from: those whose inner products come nearest to how often items stand near each other."""

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import eigsh

from tfcorr.data.transitions import Transitions

SIZE = 0.05  # root mean square of a vector's values
TOLERANCE = 1e-2  # of the eigenvalues, relative; vectors to start from need no more


def spectral_vectors(transitions: Transitions, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """Vectors of the items 0 to N, [N + 1, dim], all of one length; zeros for padding and for items without pairs.

    With a_ij the users who had i and j near each other in training, d_i = Σ_j a_ij and A = Σ_i d_i, they are the
    eigenvectors of log(1 + a_ij √A / (d_i d_j)^¾) to its largest eigenvalues, times the roots of these, each row scaled
    to one length. Where N is not above dim, the values beyond are zeros.

    Source: factors of a matrix of shifted positive pointwise mutual information are what word2vec learns (Levy and
    Goldberg, NIPS'14); ¾ smooths what is rare, as there.
    """
    first, second = np.divmod(transitions.keys, transitions.items + 1)
    directed = sparse.csr_array(
        (transitions.users.astype(np.float64), (first - 1, second - 1)), shape=(transitions.items,) * 2
    )
    pairs = (directed + directed.T).tocoo()
    degree = np.maximum(np.asarray(pairs.sum(axis=1)).ravel(), 1)
    row, column = pairs.coords
    values = np.log1p(pairs.data * degree.sum() ** 0.5 / (degree[row] * degree[column]) ** 0.75)
    near = sparse.csr_array((values, (row, column)), shape=pairs.shape)
    wanted = min(dim, transitions.items - 1)
    vectors = np.zeros((transitions.items + 1, dim), np.float32)
    if wanted > 0:
        start = np.random.default_rng(seed).normal(size=transitions.items)
        eigenvalues, eigenvectors = eigsh(near, wanted, which="LA", tol=TOLERANCE, v0=start)
        found = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0))
        length = np.linalg.norm(found, axis=1, keepdims=True)
        vectors[1:, :wanted] = np.where(
            length > length.mean() / 1000, SIZE * dim**0.5 * found / np.maximum(length, 1e-30), 0
        )
    return vectors
