"""Who else does the job, each with the call that its own users would make: one row for each in ``PEERS``.

A peer has an entry for each kernel that it offers, under the kernel's name: a function of what mlefast's function is
given. Those that derive gradients themselves have one for the value alone. All give the same numbers
(tests/bench/test_peers.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from mlefast.bench.arrays import Arrays
from mlefast.bench.cases import Case
from mlefast.bench.peers.base import Call, NotOffered, Peer
from mlefast.bench.peers.pytorch import by_compiled_torch, by_torch
from mlefast.bench.peers.scientific import by_cupyx, by_numpy, by_scipy, by_sklearn
from mlefast.bench.peers.xla import by_jax, by_tensorflow

__all__ = ["PEERS", "NotOffered", "Peer", "contestants_or_reasons"]

PEERS = {
    peer.name: peer
    for peer in (
        Peer("numpy", ("numpy",), ("numpy",), ("numpy",), by_numpy),
        Peer("scipy", ("scipy",), ("scipy",), ("numpy",), by_scipy),
        Peer("scikit-learn", ("scikit-learn",), ("sklearn",), ("numpy",), by_sklearn),
        Peer("torch", ("torch",), ("torch",), ("numpy", "cupy"), by_torch),
        Peer("torch.compile", ("torch",), ("torch",), ("numpy", "cupy"), by_compiled_torch),
        Peer("jax", ("jax", "optax"), ("jax", "optax"), ("numpy",), by_jax),
        Peer("tensorflow", ("tensorflow", "tensorflow-cpu"), ("tensorflow",), ("numpy",), by_tensorflow),
        Peer("cupyx", ("cupy-cuda12x", "cupy-cuda13x", "cupy"), ("cupy", "cupyx"), ("cupy",), by_cupyx),
    )
}


def contestants_or_reasons(
    names: Sequence[str], case: Case, sets: Sequence[Arrays]
) -> list[tuple[str, Call | None, str | None]]:
    """Prepare peers for a case: (name, its call, None), or (name, None, why there is none)."""
    prepared: list[tuple[str, Call | None, str | None]] = []
    for name in names:
        try:
            prepared.append((name, PEERS[name].prepare(case, sets), None))
        except NotOffered as reason:
            prepared.append((name, None, str(reason)))
        except Exception as error:  # whatever a library raises must not end the run: the report says why
            prepared.append((name, None, " ".join(f"{type(error).__name__}: {error}".split())[:300]))
    return prepared
