"""Cuts on events and objects, and the removal of objects that overlap.

A detector's file has them under ``cuts``.

Every expression is checked against ``schema`` when the file is read (``config.expressions``), hence
before any job runs.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from particleforge.config.base import Block, Name
from particleforge.config.expressions import check_calorimeter, parse_condition, parse_number
from particleforge.errors import UserError, did_you_mean
from particleforge.tables import schema

TOTAL = "all"  # the row of the cutflow before any cut
MOMENTUM = {"tracks": "pt", "clusters": "et"}


def _not_the_total(name: str) -> str:
    if name == TOTAL:
        raise ValueError("is the row of the cutflow before any cut; choose another name")
    return name


class CutConfig(Block):
    """One cut on events, applied after the object cuts."""

    per: ClassVar[str | None] = None  # the collection whose objects are cut; None: events

    name: Name = Field(description="row of the cutflow")
    expression: str = Field(
        description=(
            "condition over the dataset's columns, e.g. 'num(tracks.pt) >= 2' or"
            " 'sum(clusters.energy) > 10'"
        )
    )

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        return _not_the_total(name)

    @field_validator("expression")
    @classmethod
    def _expression_is_valid(cls, expression: str) -> str:
        parse_condition(expression, cls.per)
        return expression


class TrackCutConfig(CutConfig):
    """One cut on tracks."""

    per = "tracks"
    expression: str = Field(
        description="condition on each track, e.g. 'tracks.pt >= 0.1 and abs(tracks.eta) <= 2.5'"
    )


class ClusterCutConfig(CutConfig):
    """One cut on clusters."""

    per = "clusters"
    expression: str = Field(
        description=(
            "condition on each cluster, e.g. 'clusters.energy >= 0.05 or clusters.n_hits > 10'"
        )
    )


class HitCutConfig(CutConfig):
    """One cut on calorimeter hits that are elements."""

    per = "hits"
    expression: str = Field(description="condition on each hit, e.g. 'abs(hits.time) < 10'")


class CandidateCutConfig(CutConfig):
    """One cut on the baseline's candidates."""

    per = "candidates"
    expression: str = Field(
        description="condition on each candidate, e.g. 'candidates.energy > 0.2'"
    )


class ObjectCutsConfig(Block):
    """Cuts on objects, in order per collection.

    What becomes of the targets of removed elements is told in docs/data.md.
    """

    tracks: tuple[TrackCutConfig, ...] = Field((), description="cuts on tracks")
    clusters: tuple[ClusterCutConfig, ...] = Field(
        (), description="cuts on clusters; hits as elements do not see them"
    )
    hits: tuple[HitCutConfig, ...] = Field(
        (), description="cuts on hits as elements; clusters do not see them"
    )
    candidates: tuple[CandidateCutConfig, ...] = Field(
        (), description="cuts on the candidates of the baseline, not of the model"
    )


class OverlapConfig(Block):
    """Removal of objects close to a preferred object of their own kind.

    An example is a track found twice.
    """

    name: Name = Field(description="row of the cutflow")
    collection: Literal["tracks", "clusters"] = Field(description="tracks or clusters")
    delta_r_max: float = Field(
        gt=0, description="largest distance in eta and phi of two objects that overlap"
    )
    prefer: str = Field(
        description=(
            "number per object; the larger one stays, of equals the earlier in the file, e.g."
            " 'tracks.n_hits'"
        )
    )
    relative_difference_max: float | None = Field(
        None,
        gt=0,
        description=(
            "they overlap only if their pt (et) differs by no larger share of the larger one; none:"
            " whatever their pt"
        ),
    )
    same: tuple[str, ...] = Field(
        (), description="members that must be equal for objects to overlap, e.g. [charge]"
    )

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        return _not_the_total(name)

    @property
    def expression(self) -> str:
        """What objects must be to stay, in words for the cutflow."""
        near = [f"dR <= {self.delta_r_max:g}"]
        if self.relative_difference_max is not None:
            near.append(f"{MOMENTUM[self.collection]} within {self.relative_difference_max:.3g}")
        return (
            f"no other with larger {self.prefer} and"
            f" {', '.join([*near, *(f'same {member}' for member in self.same)])}"
        )

    @model_validator(mode="after")
    def _exists(self) -> Self:
        members = {"tracks": schema.TRACKS, "clusters": schema.CLUSTERS}[self.collection].names
        for member in self.same:
            if member not in members:
                raise ValueError(
                    f"same: '{self.collection}' has no member '{member}'; allowed:"
                    f" {', '.join(members)}{did_you_mean(member, members)}"
                )
        try:
            parse_number(self.prefer, self.collection)
        except ValueError as error:
            raise ValueError(f"prefer: {error} (got {self.prefer!r})") from None
        return self


class DetectorCutsConfig(Block):
    """Object cuts, then removal of overlaps, then event cuts in order.

    The cutflow counts what each leaves.
    """

    events: tuple[CutConfig, ...] = Field(
        (), description="cuts on events; each sees the objects that are left"
    )
    objects: ObjectCutsConfig = ObjectCutsConfig()
    overlaps: tuple[OverlapConfig, ...] = Field(
        (), description="duplicates to remove after the object cuts; none by default"
    )

    def of_objects(
        self, calorimeter_elements: str
    ) -> dict[str, tuple[CutConfig | OverlapConfig, ...]]:
        """Return what removes objects, in order, by kind.

        The kinds are tracks, ``calorimeter_elements`` (clusters or hits) and candidates.
        """
        kinds = ("tracks", calorimeter_elements, "candidates")
        return {
            kind: (
                *getattr(self.objects, kind),
                *(o for o in self.overlaps if o.collection == kind),
            )
            for kind in kinds
        }

    def check(self, calorimeter_elements: str, source: str) -> None:
        """Refuse cuts that ask for ``hits`` or members of ``clusters`` that the dataset will lack.

        UserError of one line.
        """
        for key, name, expression in self._applied(calorimeter_elements):
            try:
                check_calorimeter(expression, calorimeter_elements)
            except ValueError as error:
                raise UserError(
                    f"{source}: cuts.{key}: {name}: {error} (got {expression!r})"
                ) from None
        if calorimeter_elements == "hits" and (
            overlap := next((o for o in self.overlaps if o.collection == "clusters"), None)
        ):
            raise UserError(
                f"{source}: cuts.overlaps: {overlap.name}: dataset.calorimeter_elements: hits"
                " leaves no clusters; take it out"
            )

    def _applied(self, calorimeter_elements: str) -> Iterator[tuple[str, str, str]]:
        """Yield key, name and expression of all that is asked of ``calorimeter_elements``."""
        yield from (("events", cut.name, cut.expression) for cut in self.events)
        for kind, removals in self.of_objects(calorimeter_elements).items():
            for removal in removals:
                if isinstance(removal, OverlapConfig):
                    yield "overlaps", removal.name, removal.prefer
                else:
                    yield f"objects.{kind}", removal.name, removal.expression

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        overlaps = {
            name: [o.name for o in self.overlaps if o.collection == name]
            for name in ("tracks", "clusters")
        }
        groups = {"events": self.events} | {
            f"objects.{name}": getattr(self.objects, name) for name in ObjectCutsConfig.model_fields
        }
        for key, cuts in groups.items():
            names = [cut.name for cut in cuts] + overlaps.get(key.removeprefix("objects."), [])
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(
                    f"cuts.{key}: the name {repeated[0]!r} repeats; name each cut differently"
                )
        return self
