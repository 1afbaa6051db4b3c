r"""What hidden units do to their input: the names, and how an activation is computed on its own.

============  ==========================================================================================
``identity``  :math:`z`: the network stays linear
``relu``      :math:`\max(z, 0)`; the slope at 0 is 0
``tanh``      :math:`\tanh z`
``gelu``      :math:`z\,\Phi(z)`, with the normal distribution function itself (D. Hendrycks, K. Gimpel, 2016)
============  ==========================================================================================

One pass of a compiled kernel adds the intercepts, applies the activation, writes the slope with which errors flow
back, and drops units.
"""

from __future__ import annotations

from typing import Final

from mlefast import _core

ACTIVATIONS: Final[dict[str, int]] = _core.ACTIVATIONS  # a name's number among the kernels
