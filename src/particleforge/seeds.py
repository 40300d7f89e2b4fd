"""Seeds that come from names, so that the same configuration gives the same bytes wherever and in whatever order jobs run."""

import hashlib

import numpy as np

PYTHIA_SEED_MAX = 900_000_000  # Pythia8 accepts 1 ... 900 000 000 (manual, "Random-number seed")


def seed_of(*names: object) -> int:
    """Return a 63-bit seed from the parts of a name, e.g. ``seed_of(7, "ttbar", "00003", "calorimeter")``."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def pythia_seed_of(*names: object) -> int:
    """Return a seed in the range that Pythia8 accepts."""
    return 1 + seed_of(*names) % PYTHIA_SEED_MAX


def generator_of(*names: object) -> np.random.Generator:
    """Return a NumPy generator seeded from the parts of a name."""
    return np.random.default_rng(seed_of(*names))
