"""Shape of the search's static graph: which jobs exist, what each may spend, and what it waits for.

Algorithm: ASHA (Li et al., arXiv:1810.05934, Algorithm 2) promotes the best 1/eta of a rung to eta times the budget at
any time. Here rung r of a bracket has eta times fewer slots than the rung below, and slot k of it waits for nothing but
the slots ``eta*k ... eta*k + eta - 1`` of the rung below.

Invariant: when m slots of a rung have started, at least eta*m slots of the rung below have ended, of which m-1 at most are
promoted already. So a candidate exists unless trials failed, and no slot ever waits for a whole rung.

A slot is (bracket, rung, slot). Rungs are numbered by their budget, the same in all brackets; trials are promoted within
their bracket. Light on purpose: the workflow's rules import it while they are parsed.
"""

from particleforge.config.hpo import HpoConfig

Slot = tuple[int, int, int]  # bracket, rung, number of the slot


def n_rungs(hpo: HpoConfig) -> int:
    """Return the number of rungs; a search without scheduler has one."""
    return hpo.n_rungs if hpo.scheduler == "asha" else 1


def n_brackets(_hpo: HpoConfig) -> int:
    """Return the number of brackets."""
    return 1


def rungs_of(hpo: HpoConfig, bracket: int) -> range:
    """Return the rungs of a bracket; configurations are new in the first of them."""
    return range(bracket, n_rungs(hpo))


def slots_of(hpo: HpoConfig, bracket: int, rung: int) -> int:
    """Return the number of slots of a rung."""
    return hpo.first_rung_slots // int(hpo.eta ** (rung - bracket))


def top_steps(hpo: HpoConfig) -> int:
    """Return the optimiser steps after which a trial of the top rung has ended."""
    return hpo.min_steps * int(hpo.eta ** (hpo.n_rungs - 1))


def budget_steps(hpo: HpoConfig, rung: int) -> int:
    """Return the optimiser steps, counted from the start of the training, that a trial has made when it leaves a rung."""
    return hpo.min_steps * int(hpo.eta**rung) if hpo.scheduler == "asha" else top_steps(hpo)


def schedule_steps(hpo: HpoConfig) -> int:
    """Return the length of the learning-rate schedule of every trial, in optimiser steps."""
    return hpo.schedule_steps or top_steps(hpo)


def parents_of(hpo: HpoConfig, bracket: int, rung: int, slot: int) -> tuple[Slot, ...]:
    """Return the slots that a slot waits for; none in the first rung of a bracket."""
    if rung == rungs_of(hpo, bracket).start:
        return ()
    return tuple((bracket, rung - 1, hpo.eta * slot + k) for k in range(hpo.eta))


def all_slots(hpo: HpoConfig) -> tuple[Slot, ...]:
    """Return every slot of the search, bracket by bracket and rung by rung."""
    return tuple(
        (bracket, rung, slot)
        for bracket in range(n_brackets(hpo))
        for rung in rungs_of(hpo, bracket)
        for slot in range(slots_of(hpo, bracket, rung))
    )
