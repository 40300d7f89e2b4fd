"""What the events of one input file must keep to, or it is a bad file.

Inputs -> outputs: ``RawEvents`` and the truth of a file, chunk by chunk -> its energy balance and
counts for the dataset's metadata, and a verdict. The limits are ``settings.dataset``;
docs/truth.md explains them.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from particleforge.config.settings import DatasetSettings
from particleforge.dataset.balance import DROPPED, Balance
from particleforge.dataset.field import RATIOS_MAX, common_factor, pt_ratios
from particleforge.dataset.status import Decays
from particleforge.edm4hep.raw_events import FloatArray, RawEvents

log = logging.getLogger(__name__)

_CLOSURE = 1e-6
_UNLINKED = 0.2  # of the clusters' energy, without links: that is why particles are faint


class BadFileError(Exception):
    """An input that cannot be used; carries the message for the user."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path, self.reason = path, reason


def account(balance: Balance, counts: Mapping[str, int], truth: bool) -> dict[str, Any]:
    """Return what metadata tell of some events; of energies only where there is truth."""
    if not truth:
        return {"counts": dict(counts)}
    return {
        "energy_balance_gev": balance.energies_gev(),
        "counts": {**counts, **balance.counts()},
    }


class FileTally:
    """Sums over the events of one file."""

    def __init__(self, path: Path, settings: DatasetSettings) -> None:
        """Begin with nothing."""
        self.path, self.settings, self.limits = path, settings, settings.dataset
        self.balance, self.decays = Balance(), Decays()
        self.n_events, self._n_empty = 0, 0
        self._pt_ratios: dict[str, list[FloatArray]] = {}
        self._unread: set[str] = set()
        self.left_out = Counter[str]()
        self._read = Counter[str]()

    def add(self, raw: RawEvents, events: RawEvents, balance: Balance, decays: Decays) -> None:
        """Add a chunk as it was read, without invalid rows, and what its truth gave."""
        hits = self.limits.calorimeter_elements == "hits"
        self.n_events += raw.n_events
        self.balance.add(balance)
        self.decays.add(decays)
        self._read.update(
            tracks=raw.tracks.n_rows,
            **({"hits": raw.hits.n_rows} if hits else {"clusters": raw.clusters.n_rows}),
        )
        self.left_out.update(events.counts)
        self._n_empty += int(np.sum(events.tracks.counts + events.clusters.counts == 0))
        self._unread.update(raw.unread_collections)
        for of, ratios in pt_ratios(events).items():
            known = self._pt_ratios.setdefault(of, [])
            known.append(ratios[: RATIOS_MAX - sum(map(len, known))])

    def judge(self) -> None:
        """Say what was left out or read otherwise; raise BadFileError where a limit is passed."""
        self._check_decays()
        self._check_left_out()
        self._check_empty()
        self._check_field()
        self._check_visible()
        self._check_faint()
        self._check_orphans()
        self._check_dropped()

    def plain(self) -> dict[str, Any]:
        """Return the file's account for the metadata of the dataset."""
        return {
            "file": self.path.name,
            "events": self.n_events,
            **account(self.balance, self.left_out, self.limits.reads_truth),
        }

    def _bad(self, reason: str) -> BadFileError:
        return BadFileError(self.path, f"{self.path}: {reason}")

    def _check_decays(self) -> None:
        """Refuse particles said to be stable that have daughters, but did not decay to them."""
        decays = self.decays
        if not decays.conserve_energy:
            raise self._bad(
                f"{decays.number} particles of generatorStatus 1 have daughters of the generator,"
                f" with {decays.after / decays.before:.1%} of their energy: which particles are"
                " stable cannot be told; give simulated secondaries generatorStatus 0, decayed"
                " particles 2"
            )
        if decays.number:
            log.warning(
                "%s: %d particles of generatorStatus 1 have daughters of the generator; they count"
                " as decayed, and the leaves of the history as stable",
                self.path,
                decays.number,
            )

    def _check_left_out(self) -> None:
        """Say what was left out; too large a share of tracks or clusters (or hits) is refused.

        One object alone is no share: in a file of few tracks it would pass any limit.
        """
        said = ", ".join(
            f"{number} {name.removesuffix('_dropped')}"
            for name, number in sorted(self.left_out.items())
            if number and name.endswith("_dropped")
        )
        if said:
            log.warning("%s: left out, as a value is missing or impossible: %s", self.path, said)
        if raised := self.left_out["candidates_raised"]:
            log.warning(
                "%s: %d candidates have less energy than momentum; the momentum takes its place",
                self.path,
                raised,
            )
        if self._unread:
            log.warning(
                "%s: hits of clusters lie in %s, which the detector's 'collections' do not name;"
                " links to these clusters take their place, where there are any",
                self.path,
                ", ".join(sorted(self._unread)),
            )
        limit = self.limits.dropped_objects_fraction_max
        for name, number in self._read.items():
            dropped = self.left_out[f"{name}_dropped"]
            if dropped > max(limit * number, 1 if limit else 0):
                stateless = self.left_out[f"{name}_without_state"]
                at_ip = (
                    f"; {stateless} have no state at the interaction point, see"
                    " collections.track_state_at_ip"
                    if stateless
                    else ""
                )
                raise self._bad(
                    f"{dropped} of {number} {name} are unusable (a value is missing or"
                    f" impossible{at_ip}), allowed {limit:.1%}; fetch or simulate it again, or"
                    " raise dataset.dropped_objects_fraction_max"
                )

    def _check_visible(self) -> None:
        """Refuse a file of whose energy too little is seen."""
        balance = self.balance
        seeable = balance.generated - balance.neutrinos - balance.outside
        limit = self.limits.visible_energy_fraction_min
        if balance.visible < limit * seeable:
            raise self._bad(
                f"{balance.visible / seeable:.1%} of the generated energy, without neutrinos and"
                f" what flies past the calorimeters, is visible, asked for {limit:.1%}; check the"
                " file's truth links, or lower dataset.visible_energy_fraction_min"
            )

    def _check_faint(self) -> None:
        """Refuse a file of whose energy too much is too faint, naming what may be missing."""
        balance, limit = self.balance, self.limits.faint_energy_fraction_max
        seeable = balance.generated - balance.neutrinos - balance.outside
        if balance.faint <= limit * seeable:
            return
        if self._unread:
            reason = (
                f"hits lie in {', '.join(sorted(self._unread))}, which 'collections' do not name"
            )
        elif balance.unlinked_clusters > _UNLINKED * balance.clusters:
            share = balance.unlinked_clusters / balance.clusters
            reason = f"{share:.1%} of the clusters' energy is linked to no particle"
        else:
            reason = f"clusters have {balance.clusters:.4g} of {seeable:.4g} GeV"
        raise self._bad(
            f"{balance.faint / seeable:.1%} of the generated energy, without neutrinos and what"
            f" flies past the calorimeters, left too little to be seen, allowed {limit:.1%}:"
            f" {reason}; correct the detector's 'collections', or raise"
            " dataset.faint_energy_fraction_max"
        )

    def _check_empty(self) -> None:
        """Refuse a file of whose events too many have no element."""
        limit = self.limits.empty_events_fraction_max
        if self._n_empty > limit * self.n_events:
            raise self._bad(
                f"{self._n_empty} of {self.n_events} events have neither a track nor a"
                f" {self.limits.calorimeter_elements.removesuffix('s')}, allowed {limit:.1%}; see"
                " particleforge inspect and correct the detector's 'collections' or 'delphes', or"
                " raise dataset.empty_events_fraction_max"
            )

    def _check_field(self) -> None:
        """Refuse a file of tracks that were measured in another field."""
        limit, field = self.limits.track_pt_deviation_max, self.settings.b_field_tesla
        for of, parts in self._pt_ratios.items():
            ratios = np.concatenate(parts)
            factor = common_factor(ratios)
            if factor is None:
                continue
            if max(factor, 1 / factor) > 1 + limit:
                raise self._bad(
                    f"tracks have {factor:.3g} times the pT of {of} (median of {len(ratios)}): with"
                    f" b_field_tesla {field:g}, where {field / factor:.3g} would fit; correct it in"
                    " the detector's file or take another detector, or raise"
                    " dataset.track_pt_deviation_max"
                )
            return

    def _check_orphans(self) -> None:
        """Refuse links to particles that neither come of a truth particle nor became some."""
        balance, limit = self.balance, self.limits.orphan_energy_fraction_max
        if balance.orphan_deposits > limit * balance.deposits:
            raise self._bad(
                f"{balance.orphan_deposits / balance.deposits:.1%} of the calorimeter energy"
                f" ({balance.orphan_deposits:.4g} GeV) is linked to particles for which no stable"
                f" particle of the generator stands, allowed {limit:.1%}; check generatorStatus and"
                " parents of the particles, or raise dataset.orphan_energy_fraction_max"
            )

    def _check_dropped(self) -> None:
        """Refuse a balance that does not close (a defect), or of which too much is dropped."""
        balance = self.balance
        missing = balance.visible - balance.target - balance.dropped
        assert abs(missing) <= _CLOSURE * max(balance.visible, 1.0), (
            f"energy balance misses {missing} GeV of {balance.visible} GeV"
        )
        limit = self.limits.dropped_energy_fraction_max
        if balance.dropped > limit * balance.visible:
            reason = max(DROPPED, key=lambda name: getattr(balance, name))
            raise self._bad(
                f"{balance.dropped / balance.visible:.1%} of the visible energy finds no element,"
                f" allowed {limit:.1%}; most of it: {DROPPED[reason]}; check the file's truth"
                " links, or raise dataset.dropped_energy_fraction_max"
            )
