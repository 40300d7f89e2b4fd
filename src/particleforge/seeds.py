"""Seeds from names: the same configuration gives the same bytes wherever jobs run, in any order."""

import hashlib

import numpy as np
from numpy.typing import NDArray

PYTHIA_SEED_MAX = 900_000_000  # Pythia8 accepts 1 ... 900 000 000 (manual, "Random-number seed")


def seed_of(*names: object) -> int:
    """Return a 63-bit seed from the parts of a name.

    For example, ``seed_of(7, "ttbar", "00003", "calorimeter")``.
    """
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def pythia_seed_of(*names: object) -> int:
    """Return a seed in the range that Pythia8 accepts."""
    return 1 + seed_of(*names) % PYTHIA_SEED_MAX


def generator_of(*names: object) -> np.random.Generator:
    """Return a NumPy generator seeded from the parts of a name."""
    return np.random.default_rng(seed_of(*names))


def hash_of(identities: NDArray[np.uint64], *names: object) -> NDArray[np.uint64]:
    """Return a uniform 64-bit hash of each identity, another one for other ``names``.

    Equal identities, equal hashes.

    Keyed by xor before and addition after a first round of ``split_mix``.
    """
    key = np.uint64(seed_of(*names))
    return split_mix(split_mix(identities.astype(np.uint64) ^ key) + key)


def split_mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64-bit words mixed by the finaliser of SplitMix64, a bijection.

    Steele, Lea, Flood, OOPSLA 2014, "Fast splittable pseudorandom number generators".
    """
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
