"""Follow ROOT references between objects of one event.

Inputs -> outputs: reference numbers and the objects' unique IDs, of all events of a chunk at once
-> row numbers.

ROOT gives every object that something refers to a number within its process and keeps it in the
lower 24 bits of ``fUniqueID`` (TObject, TProcessID: the upper 8 bits say which process); a TRef and
a TRefArray hold those numbers. So an object is meant where ``reference & 0xFFFFFF == fUniqueID &
0xFFFFFF``. Delphes starts counting anew with each event, so a number means something within its
event alone. 0 refers to nothing.

Invariant: a row that is returned lies in the event of its reference; where two objects of an event
claim one number, it is the first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from particleforge.edm4hep.raw_events import Array, IntArray, Pairs, joined

_NUMBER_BITS = 24
_NUMBER = (1 << _NUMBER_BITS) - 1


def keys(event: Array, reference: Array) -> IntArray:
    """Return what identifies an object in the chunk: event and number in one integer.

    -1 for a reference to nothing.

    ``event`` [n] counts within the chunk, ``reference`` [n] holds references or unique IDs of any
    integer type.
    """
    number = np.asarray(reference).astype(np.int64) & _NUMBER
    return np.where(number == 0, -1, (np.asarray(event).astype(np.int64) << _NUMBER_BITS) | number)


def resolve(references: Array, objects: Array) -> IntArray:
    """Return the row of ``objects`` that each of ``references`` means, -1 where none.

    Both are ``keys``.
    """
    order = np.argsort(objects, kind="stable")
    in_order = objects[order]
    place = np.searchsorted(in_order, references)
    padded: NDArray[Any] = np.append(in_order, -1)
    found = (references >= 0) & (padded[place] == references)
    return np.where(found, np.append(order, -1)[place], -1)


def sharing(left: Pairs, right: Pairs) -> Pairs:
    """Return (left row, right row) for every two rows that refer to the same object.

    The right ends of both are ``keys``.
    """
    left, right = left.where(left.right >= 0), right.where(right.right >= 0)
    named, number = np.unique(np.concatenate([left.right, right.right]), return_inverse=True)
    middle, other = number[: len(left.right)], number[len(left.right) :]
    pairs = joined(Pairs.of(left.left, middle), Pairs.of(other, right.left), len(named))
    width = int(right.left.max(initial=0)) + 1
    both = np.unique(pairs.left * width + pairs.right)
    return Pairs.of(both // width, both % width)
