"""Numbers with a unit that several blocks have, and what two of them must keep to.

Bounds are far beyond any detector there is or is planned. What exceeds them is a mistake of units.
"""

from typing import Annotated

from pydantic import Field

LENGTH_MAX_MM = 1e5  # rays are followed for 100 m

Length = Annotated[float, Field(gt=0, le=LENGTH_MAX_MM)]  # mm
Spread = Annotated[float, Field(ge=0, le=LENGTH_MAX_MM)]  # mm, of a position
Energy = Annotated[float, Field(gt=0, le=1e6)]  # GeV, ten times the largest collider planned
EnergyCut = Annotated[float, Field(ge=0, le=1e6)]  # GeV
DepositMev = Annotated[float, Field(gt=0, le=1e9)]
DepositCutMev = Annotated[float, Field(ge=0, le=1e9)]
Pseudorapidity = Annotated[float, Field(gt=0, le=20)]  # the beams' own at 1e6 GeV is below 15
RelativeSpread = Annotated[float, Field(ge=0, le=1)]
StochasticTerm = Annotated[float, Field(ge=0, le=10)]  # sqrt(GeV)

PDG_MAX = 1_999_999_999  # the scheme's codes have ten digits at most, those of nuclei
_THIRDS_OF_QUARKS = (0, -1, 2, -1, 2, -1, 2, -1, 2)


def is_charged(pdg: int) -> bool | None:
    """Tell whether a positive PDG code is of a charged particle; None for codes not of the scheme.

    After "Monte Carlo particle numbering scheme" of the PDG: quarks are digits of the code.
    """
    thousands, hundreds, tens = (pdg // 10**place % 10 for place in (3, 2, 1))
    if pdg in range(11, 19):
        return pdg % 2 == 1
    if pdg in (21, 22, 23, 25):
        return False
    if pdg == 24:
        return True
    if pdg in range(100, 1_000_000) and hundreds and tens and max(hundreds, tens, thousands) < 9:
        first, second, third = (_THIRDS_OF_QUARKS[digit] for digit in (thousands, hundreds, tens))
        return (first + second + third if thousands else second - third) != 0
    return None


def below(small: tuple[str, float], large: tuple[str, float]) -> None:
    """Raise a ValueError unless the first of two (key, value) is less than the second."""
    if not small[1] < large[1]:
        raise ValueError(_order(small, "below", large))


def at_most(small: tuple[str, float], large: tuple[str, float]) -> None:
    """Raise a ValueError if the first of two (key, value) is more than the second."""
    if not small[1] <= large[1]:
        raise ValueError(_order(small, "at most", large))


def _order(small: tuple[str, float], relation: str, large: tuple[str, float]) -> str:
    shown = (
        f"{key} {value:.10g}" if isinstance(value, float) else f"{key} {value}"[:80]
        for key, value in (small, large)
    )
    return f" must be {relation} ".join(shown)
