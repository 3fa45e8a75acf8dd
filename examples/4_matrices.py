"""The factorization alone: a scikit-learn estimator for any non-negative matrix.

python examples/4_matrices.py
"""

import numpy as np
import sklearn.decomposition

from dff import NMF

rng = np.random.default_rng(0)
data = rng.gamma(1, size=(2000, 6)) @ rng.gamma(1, size=(6, 300)) + 0.01 * rng.random((2000, 300))

ours = NMF(n_components=6).fit(data)
peer = sklearn.decomposition.NMF(n_components=6, init="nndsvda").fit(data)
print(
    f"error of ours {ours.reconstruction_err_:.4f}, of scikit-learn {peer.reconstruction_err_:.4f}"
)
print("each component explains", np.round(ours.explained_share_, 3))
print("coefficients of new rows:", ours.transform(data[:3]).shape)
