"""Shape of the search's static graph: which jobs exist, what each may spend, and what it waits for.

Algorithm: ASHA (Li et al., arXiv:1810.05934, Algorithm 2) promotes the best 1/eta of a rung to eta times the budget at
any time. Here rung r has ``first_rung_slots // eta**r`` slots, and slot k of rung r waits for nothing but the slots
``eta*k ... eta*k + eta - 1`` of rung r-1.

Invariant: when m slots of rung r have started, at least eta*m slots of rung r-1 have ended, of which m-1 at most are
promoted already. So a candidate exists unless trials failed, and no slot ever waits for a whole rung.

Light on purpose: the workflow's rules import it while they are parsed.
"""

from particleforge.config.hpo import HpoConfig


def n_rungs(hpo: HpoConfig) -> int:
    """Return the number of rungs; a search without scheduler has one."""
    return hpo.n_rungs if hpo.scheduler == "asha" else 1


def slots_of(hpo: HpoConfig, rung: int) -> int:
    """Return the number of slots of a rung."""
    return hpo.first_rung_slots // int(hpo.eta**rung)


def top_steps(hpo: HpoConfig) -> int:
    """Return the optimiser steps after which a trial of the top rung has ended."""
    return hpo.min_steps * int(hpo.eta ** (hpo.n_rungs - 1))


def budget_steps(hpo: HpoConfig, rung: int) -> int:
    """Return the optimiser steps, counted from the start of the training, that a trial has made when it leaves a rung."""
    return hpo.min_steps * int(hpo.eta**rung) if hpo.scheduler == "asha" else top_steps(hpo)


def schedule_steps(hpo: HpoConfig) -> int:
    """Return the length of the learning-rate schedule of every trial, in optimiser steps."""
    return hpo.schedule_steps or top_steps(hpo)


def parents_of(hpo: HpoConfig, rung: int, slot: int) -> tuple[tuple[int, int], ...]:
    """Return the (rung, slot) pairs that a slot waits for; none in the first rung."""
    return tuple((rung - 1, hpo.eta * slot + k) for k in range(hpo.eta)) if rung else ()


def all_slots(hpo: HpoConfig) -> tuple[tuple[int, int], ...]:
    """Return every (rung, slot) of the search, rung by rung."""
    return tuple((rung, slot) for rung in range(n_rungs(hpo)) for slot in range(slots_of(hpo, rung)))
