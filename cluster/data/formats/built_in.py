"""The data sets of scikit-learn that need no file."""

from __future__ import annotations

from cluster.data.content import AnyArray, Arrays


def built_in(source: str) -> Arrays:
    """Return one of scikit-learn's data sets, scaled so that plain SGD trains on it.

    digits: 1797 images, x (1797, 64) = pixels / 16, so from 0 to 1; y labels 0..9.
    diabetes: x (442, 10) and y (442, 1), each column with mean 0 and standard deviation 1 over all 442 rows; a model
    that always predicts the mean has an mse of 1. (Original target: mean 152.1, standard deviation 77.0.)
    """
    from sklearn import datasets

    if source == "digits":
        x, y = datasets.load_digits(return_X_y=True)
        return Arrays(x=x / 16, y=y)
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return Arrays(x=_standardised(x), y=_standardised(y[:, None]))


def _standardised(columns: AnyArray) -> AnyArray:
    scaled: AnyArray = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return scaled
