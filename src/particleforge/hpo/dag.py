"""Shape of the search's static graph: which jobs exist, what each may spend, and what it waits for.

A job is a slot (rung, slot). A rung has eta times the budget of the rung below it and eta times
fewer slots.

* ``asha`` (Li et al., arXiv:1810.05934, Algorithm 2): slot k waits for the slots ``eta*k ... eta*k
  + eta - 1`` of the rung below, and for up to eta - 1 more. So the last slot of a rung waits for
  all, also where eta does not divide their number; otherwise those that are left over could never
  be promoted. As every slot has the rule, a slot never waits for less when a search grows.
* ``rasda`` (Aach et al., resource-adaptive successive doubling): as ``asha``, and workers and batch
  grow from rung to rung.
* ``none``: one rung at the full budget.

Invariant: when m slots of a rung have started, at least eta*m slots of the rung below have ended,
of which m-1 at most are promoted already. So while nothing fails there is always a trial to
promote, and it lies in the top 1/eta. No rung waits for all of another.

Light on purpose: the workflow's rules import it while they are parsed.
"""

from particleforge.config.hpo import HpoConfig

Slot = tuple[int, int]  # rung, number of the slot


def n_rungs(hpo: HpoConfig) -> int:
    """Return the number of rungs; a search without scheduler has one."""
    return 1 if hpo.scheduler == "none" else hpo.n_rungs


def slots_of(hpo: HpoConfig, rung: int) -> int:
    """Return the number of slots of a rung: one for every eta of the rung below."""
    return int(hpo.first_rung_slots // hpo.eta**rung)


def parents_of(hpo: HpoConfig, rung: int, slot: int) -> tuple[Slot, ...]:
    """Return the slots that a slot waits for; none in the first rung."""
    if not rung:
        return ()
    below = range(slots_of(hpo, rung - 1))
    return tuple((rung - 1, k) for k in below[hpo.eta * slot : hpo.eta * (slot + 2) - 1])


def all_slots(hpo: HpoConfig) -> tuple[Slot, ...]:
    """Return every slot of the search, rung by rung."""
    return tuple(
        (rung, slot) for rung in range(n_rungs(hpo)) for slot in range(slots_of(hpo, rung))
    )


def starting_order(hpo: HpoConfig) -> tuple[Slot, ...]:
    """Return every slot, in the order in which those start that may.

    Promotions come first, the largest budgets before others: results come early, which samplers
    learn from.
    """
    return tuple(sorted(all_slots(hpo), key=lambda slot: (-slot[0], slot)))


def growth(hpo: HpoConfig, rung: int) -> int:
    """Return by what factor a rung's workers, and batch, are more than those of the first rung."""
    return int(hpo.ranks_factor**rung) if hpo.scheduler == "rasda" else 1


def ranks(hpo: HpoConfig, rung: int) -> int:
    """Return the DDP processes of a rung's trainings."""
    return hpo.ranks * growth(hpo, rung)


def budget(hpo: HpoConfig, rung: int) -> float:
    """Return how much a trial has trained in all when it leaves a rung, in ``hpo.budget_unit``."""
    return hpo.min_budget * int(hpo.eta ** (rung if hpo.scheduler != "none" else hpo.n_rungs - 1))


def budget_text(hpo: HpoConfig, rung: int) -> str:
    """Return the number of steps, epochs or events of a rung's budget, with thin groups."""
    amount = budget(hpo, rung)
    return (
        f"{amount:,.0f}".replace(",", "\u202f") if float(amount).is_integer() else f"{amount:.3g}"
    )


def schedule_budget(hpo: HpoConfig) -> float:
    """Return every trial's schedule length in ``hpo.budget_unit``: top budget or as configured."""
    return hpo.schedule_steps or hpo.min_budget * int(
        hpo.eta ** ((hpo.schedule_rungs or hpo.n_rungs) - 1)
    )


def budget_steps(hpo: HpoConfig, rung: int) -> int:
    """Return the budget of a rung in optimiser steps, where budgets are given in steps."""
    assert hpo.min_steps is not None, f"how many steps {hpo.budget_unit} are depends on the trial"
    return int(budget(hpo, rung))


def schedule_steps(hpo: HpoConfig) -> int:
    """Return the length of the learning-rate schedule in optimiser steps.

    Budgets must be given in steps.
    """
    assert hpo.min_steps is not None, f"how many steps {hpo.budget_unit} are depends on the trial"
    return int(schedule_budget(hpo))
