"""scikit-learn's exact t-SNE of points that tests/it/tsne.rs makes, too: the divergence it reaches, and how well it keeps neighbours.

scikit-learn 1.9.1, NumPy 2.4.6; `python tsne.py > tsne.json`
"""

import json
import math

import numpy as np
import sklearn
from sklearn.manifold import TSNE, trustworthiness

COUNT, DIMS, GROUPS = 150, 8, 5
PERPLEXITY = 20.0
NEIGHBOURS = 10


def points():
    """Groups of different sizes and widths, in 32 bits."""
    rows = np.zeros((COUNT, DIMS))
    for i in range(COUNT):
        group = i % GROUPS
        for j in range(DIMS):
            centre = 2.0 * math.sin(3.0 * group + 1.7 * j)
            rows[i, j] = centre + (0.2 + 0.1 * group) * math.sin(0.37 * (i + 1) * (j + 2) + j * j)
    return rows.astype(np.float32)


def main():
    data = points()
    model = TSNE(perplexity=PERPLEXITY, init="pca", method="exact", max_iter=1000, n_iter_without_progress=1000, min_grad_norm=0.0)
    found = model.fit_transform(data)
    golden = {
        "versions": {"scikit-learn": sklearn.__version__, "numpy": np.__version__},
        "perplexity": PERPLEXITY,
        "first": data[0].tolist(),
        "kl_divergence": float(model.kl_divergence_),
        "trustworthiness": float(trustworthiness(data, found, n_neighbors=NEIGHBOURS)),
    }
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
