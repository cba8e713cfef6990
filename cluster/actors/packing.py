"""Orders and results as bytes, between the coordinator and its workers.

Ray pickles objects with cloudpickle, which calls a Python function for every object of a class. A submission has
hundreds of them, and the workers compute while the coordinator pickles and unpickles, on the same cores. Plain pickle
needs half of the time or less, and orders are packed once for all workers.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from stages.orders import Gather, Order, Result

_PROTOCOL = 5


def pack_orders(orders: Sequence[Order]) -> bytes:
    """Return the orders for a worker's `run`."""
    return pickle.dumps(tuple(orders), _PROTOCOL)


def unpack_orders(packed: bytes) -> tuple[Order, ...]:
    """Return what `pack_orders` packed."""
    orders: tuple[Order, ...] = pickle.loads(packed)
    return orders


def pack_result(orders: Sequence[Order], result: Result) -> Result | bytes:
    """Return the result of the orders, packed if it has no arrays: Ray shares large arrays without copying them."""
    return result if any(isinstance(order, Gather) for order in orders) else pickle.dumps(result, _PROTOCOL)


def unpack_result(found: Result | bytes) -> Result:
    """Return a worker's result."""
    if not isinstance(found, bytes):
        return found
    result: Result = pickle.loads(found)
    return result
