"""Maximum likelihood estimation with softmax models: exact, fused cross-entropy kernels and classifiers on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlefast._config import get_num_threads, set_num_threads, show_config
from mlefast._version import __version__
from mlefast.binary import binary_cross_entropy, binary_cross_entropy_and_grad
from mlefast.derivatives import cross_entropy_grad_hess, cross_entropy_hvp, log_softmax_vjp, softmax_vjp
from mlefast.divergences import (
    entropy,
    entropy_and_grad,
    information_gain,
    js_div,
    js_div_and_grad,
    kl_div,
    kl_div_and_grad,
)
from mlefast.likelihood import (
    log_prob,
    log_prob_and_entropy,
    log_prob_and_entropy_and_grad,
    log_prob_and_grad,
)
from mlefast.linear import linear_cross_entropy, linear_cross_entropy_and_grad
from mlefast.losses import cross_entropy, cross_entropy_and_grad, focal_loss, focal_loss_and_grad
from mlefast.softmax import log_softmax, logsumexp, softmax

if TYPE_CHECKING:
    from mlefast.estimators import MLPClassifier, SoftmaxClassifier

__all__ = [
    "MLPClassifier",
    "SoftmaxClassifier",
    "__version__",
    "binary_cross_entropy",
    "binary_cross_entropy_and_grad",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_grad_hess",
    "cross_entropy_hvp",
    "entropy",
    "entropy_and_grad",
    "focal_loss",
    "focal_loss_and_grad",
    "get_num_threads",
    "information_gain",
    "js_div",
    "js_div_and_grad",
    "kl_div",
    "kl_div_and_grad",
    "linear_cross_entropy",
    "linear_cross_entropy_and_grad",
    "log_prob",
    "log_prob_and_entropy",
    "log_prob_and_entropy_and_grad",
    "log_prob_and_grad",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "set_num_threads",
    "show_config",
    "softmax",
    "softmax_vjp",
]


def __getattr__(name: str) -> Any:
    # scikit-learn is imported by those who touch an estimator, not by those who import a loss.
    if name in ("MLPClassifier", "SoftmaxClassifier"):
        from mlefast import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module 'mlefast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
