"""Columns of every event table: names, types, units and meaning, each written once.

Pure Python, so that the configuration can be checked against it at parse time; ``tables`` turns it
into Arrow schemas.

Conventions that hold in every table:

* one row per event; lengths in mm, energies and momenta in GeV (c = 1), angles in radians;
* the *elements* of an event are its tracks, in order, followed by its clusters, in order;
  ``targets`` and every ``element`` index refer to that concatenation; -1 means none;
* where ``dataset.calorimeter_elements`` is hits, every calorimeter hit is a cluster of its own:
  ``clusters`` holds the hits, with the members of ``HITS``;
* ``class_id`` 0 is "none"; 1 ... n follow ``particle_classes`` of the detector's configuration.
"""

from collections.abc import Container
from dataclasses import dataclass
from enum import IntEnum


@dataclass(frozen=True)
class Field:
    """One column, or one member of a record in a list column."""

    name: str
    dtype: str
    unit: str
    description: str


@dataclass(frozen=True)
class Collection:
    """A column that holds a list of records per event."""

    name: str
    description: str
    fields: tuple[Field, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the record's members, in order."""
        return tuple(field.name for field in self.fields)


class Fate(IntEnum):
    """What became of a stable generator particle in the targets."""

    INVISIBLE = 0  # neutrinos, and what left too little in the detector
    HOSTED = 1  # owns the element it points to
    MERGED = 2  # its four-momentum was added to the owner of the element it points to
    DROPPED = 3  # visible, but found no element; accounted for in the file's energy balance


# type ids are 1, 2, ...; 0 is padding; with hits as elements, "hit" has the place of "cluster"
ELEMENT_TYPES = (
    "track",
    "cluster",
)
PADDING = 0
# computed by preprocessing.features
DERIVED_FEATURES = ("sin_phi", "cos_phi", "sin_phi_calo", "cos_phi_calo")
# What the model starts from, always among the features: transverse momentum, energy,
# pseudorapidity, sine and cosine of the azimuth
_HOST_OF_CALORIMETER = ("et", "energy", "eta", "sin_phi", "cos_phi")
HOST_FEATURES = {
    "track": ("pt", "p", "eta", "sin_phi", "cos_phi"),
    "cluster": _HOST_OF_CALORIMETER,
    "hit": _HOST_OF_CALORIMETER,
}
# where an element lies at the calorimeter: the distance between elements that attention may know
_POSITION_IN_CALORIMETER = ("eta", "sin_phi", "cos_phi")
POSITION_FEATURES = {
    "track": ("eta_calo", "sin_phi_calo", "cos_phi_calo"),
    "cluster": _POSITION_IN_CALORIMETER,
    "hit": _POSITION_IN_CALORIMETER,
}
REQUIRED_FEATURES = {
    name: tuple(dict.fromkeys((*HOST_FEATURES[name], *POSITION_FEATURES[name])))
    for name in HOST_FEATURES
}
NONE_CLASS = 0
N_SHARES = 4  # hosts of a cluster's energy that a shard keeps
SCHEMA_VERSION = 1

EVENT = (
    Field(
        "event_id",
        "uint64",
        "",
        "hash of sample, run and event number (of given files also of the particles): the event's"
        " identity",
    ),
    Field("run_number", "uint32", "", "run number; the simulators write the shard's number"),
    Field("event_number", "uint64", "", "event number within the run"),
    Field("weight", "float64", "", "generator weight"),
)

TRACKS = Collection(
    "tracks",
    "reconstructed charged-particle tracks, parameters at the interaction point",
    (
        Field("pt", "float32", "GeV", "transverse momentum"),
        Field("eta", "float32", "", "pseudorapidity"),
        Field("phi", "float32", "rad", "azimuth"),
        Field("p", "float32", "GeV", "momentum"),
        Field("charge", "int8", "e", "charge from the sense of curvature"),
        Field("omega", "float32", "1/mm", "signed curvature"),
        Field("tan_lambda", "float32", "", "tangent of the dip angle"),
        Field("d0", "float32", "mm", "transverse impact parameter with regard to the origin"),
        Field("z0", "float32", "mm", "longitudinal impact parameter with regard to the origin"),
        Field("chi2", "float32", "", "chi-square of the fit"),
        Field("ndf", "float32", "", "degrees of freedom of the fit"),
        Field("n_hits", "float32", "", "tracker hits on the track"),
        Field("dedx", "float32", "GeV/mm", "specific ionisation; 0 where the file has none"),
        Field("radius_innermost_hit", "float32", "mm", "radius of the first hit; 0 where unknown"),
        Field(
            "eta_calo",
            "float32",
            "",
            "pseudorapidity of the point of entry into the calorimeter; eta where unknown",
        ),
        Field(
            "phi_calo",
            "float32",
            "rad",
            "azimuth of the point of entry into the calorimeter; phi where unknown",
        ),
    ),
)

CLUSTERS = Collection(
    "clusters",
    "calorimeter clusters",
    (
        Field("energy", "float32", "GeV", "calibrated energy"),
        Field("et", "float32", "GeV", "energy times sin(theta) of the position"),
        Field("eta", "float32", "", "pseudorapidity of the position"),
        Field("phi", "float32", "rad", "azimuth of the position"),
        Field("x", "float32", "mm", "energy-weighted position"),
        Field("y", "float32", "mm", "energy-weighted position"),
        Field("z", "float32", "mm", "energy-weighted position"),
        Field("energy_ecal", "float32", "GeV", "energy in the electromagnetic calorimeter"),
        Field("energy_hcal", "float32", "GeV", "energy in the hadronic calorimeter"),
        Field("energy_other", "float32", "GeV", "energy elsewhere (muon system, forward)"),
        Field("n_hits", "float32", "", "hits in the cluster"),
        Field(
            "width_transverse",
            "float32",
            "mm",
            "energy-weighted RMS distance from the axis origin-position",
        ),
        Field(
            "width_longitudinal",
            "float32",
            "mm",
            "energy-weighted RMS along the axis origin-position",
        ),
        Field(
            "depth",
            "float32",
            "mm",
            "distance of the position from the calorimeter's inner face along the axis",
        ),
        *(
            Field(
                f"fraction_ecal_{number}",
                "float32",
                "",
                f"fraction of the hits' energy in depth bin {number} of the ECAL, in front of the"
                " HCAL's face (cluster_shape.ecal_depth_edges_radiation_lengths); 0 without hits",
            )
            for number in (1, 2, 3, 4)
        ),
        *(
            Field(
                f"fraction_hcal_{number}",
                "float32",
                "",
                f"likewise in depth bin {number} behind the HCAL's face, muon system included"
                " (cluster_shape.hcal_depth_edges_interaction_lengths); 0 without hits",
            )
            for number in (1, 2, 3)
        ),
        *(
            Field(
                f"fraction_core_{number}",
                "float32",
                "",
                f"fraction of the hits' energy within radius {number} of the axis"
                " (cluster_shape.core_radii_moliere); 0 without hits",
            )
            for number in (1, 2, 3)
        ),
        Field(
            "fraction_hottest",
            "float32",
            "",
            "fraction of the hits' energy in the hit with the most; 0 without hits",
        ),
        Field(
            "width_minor",
            "float32",
            "mm",
            "energy-weighted RMS distance from the axis in the direction across it in which it is"
            " least; with width_transverse it tells the elongation; 0 without hits",
        ),
    ),
)

HITS = Collection(
    CLUSTERS.name,
    "calorimeter hits, each in the place of a cluster",
    (
        *CLUSTERS.fields[:4],  # energy, et, eta, phi
        Field("x", "float32", "mm", "position"),
        Field("y", "float32", "mm", "position"),
        Field("z", "float32", "mm", "position"),
        Field("in_ecal", "float32", "", "1 in the electromagnetic calorimeter, else 0"),
        Field("in_hcal", "float32", "", "1 in the hadronic calorimeter, else 0"),
        Field("in_other", "float32", "", "1 elsewhere (muon system, forward), else 0"),
        Field(
            "depth",
            "float32",
            "mm",
            "distance from the calorimeter's inner face along the line from the origin: the layer",
        ),
        Field("time", "float32", "ns", "time; 0 where the file has none"),
    ),
)

TELLS_HITS = "in_ecal"  # no cluster has it

PARTICLES = Collection(
    "particles",
    "stable generator particles (neutrinos included; what decayed or converted in flight gives way"
    " to its tracked daughters, docs/truth.md) with what became of them",
    (
        Field("pdg", "int32", "", "PDG code"),
        Field("charge", "int8", "e", "charge"),
        Field("px", "float64", "GeV", "momentum"),
        Field("py", "float64", "GeV", "momentum"),
        Field("pz", "float64", "GeV", "momentum"),
        Field("energy", "float64", "GeV", "energy"),
        Field("class_id", "int8", "", "class by PDG code alone, 0 for neutrinos"),
        Field("fate", "int8", "", "schema.Fate"),
        Field("element", "int32", "", "element that owns the particle, -1 if invisible or dropped"),
        Field(
            "deposited_energy",
            "float32",
            "GeV",
            "calibrated calorimeter energy that it and its descendants left",
        ),
    ),
)

TARGETS = Collection(
    "targets",
    "what each element should become, in the order of the elements",
    (
        Field("class_id", "int8", "", "class by host, 0 for none"),
        Field("charge", "int8", "e", "charge"),
        Field("px", "float64", "GeV", "momentum, merged particles included"),
        Field("py", "float64", "GeV", "momentum, merged particles included"),
        Field("pz", "float64", "GeV", "momentum, merged particles included"),
        Field("energy", "float64", "GeV", "energy, merged particles included"),
        Field("particle", "int32", "", "index of the owner in particles, -1 for none"),
        Field("n_merged", "int16", "", "particles merged into the owner"),
    ),
)

TRACK_LINKS = Collection(
    "track_links",
    "share of a track that a particle made",
    (
        Field("track", "int32", "", "index in tracks"),
        Field("particle", "int32", "", "index in particles"),
        Field("weight", "float32", "", "share of the track's hits, 0 ... 1"),
    ),
)

CLUSTER_LINKS = Collection(
    "cluster_links",
    "energy in a cluster that a particle left",
    (
        Field("cluster", "int32", "", "index in clusters"),
        Field("particle", "int32", "", "index in particles"),
        Field("energy", "float32", "GeV", "calibrated energy"),
    ),
)

CANDIDATES = Collection(
    "candidates",
    "particles that a reconstruction found",
    (
        Field("pdg", "int32", "", "PDG code"),
        Field("class_id", "int8", "", "class"),
        Field("charge", "int8", "e", "charge"),
        Field("px", "float32", "GeV", "momentum"),
        Field("py", "float32", "GeV", "momentum"),
        Field("pz", "float32", "GeV", "momentum"),
        Field("energy", "float32", "GeV", "energy"),
        Field("element", "int32", "", "element that the candidate stands for, -1 if none"),
    ),
)

WEIGHT = Field(
    "weight",
    "float32",
    "",
    "probability that there is a particle, on tracks times a factor for the energy that they hide",
)

# Sums of energies and momenta multiply each candidate by its weight.
WEIGHTED_CANDIDATES = Collection(
    CANDIDATES.name, "particles that the model found", (*CANDIDATES.fields, WEIGHT)
)

LATENTS = Field(
    "latents",
    "float16",
    "",
    "the last embedding of the candidate's element, which the model's heads are given",
)

SPLIT = Field(
    "split",
    "string",
    "",
    "train, valid or test, by hash of the event's identity; test if its sample is held out",
)

# A built dataset; a selected one adds SPLIT to EVENT; ``candidates`` are the baseline's.
DATASET = (TRACKS, CLUSTERS, PARTICLES, TARGETS, TRACK_LINKS, CLUSTER_LINKS, CANDIDATES)
DATASET_OF_HITS = (TRACKS, HITS, PARTICLES, TARGETS, TRACK_LINKS, CLUSTER_LINKS, CANDIDATES)

# A reconstructed file has EVENT and the model's candidates.
RECONSTRUCTED = (WEIGHTED_CANDIDATES,)

# Where truth is not read, what leads back to the file that was read stands beside EVENT and the
# collections, in a dataset and in what is reconstructed from it.
HEADER_OF_FILE = (
    Field(
        "file_event_number", "uint64", "", "event number as the file has it; its position if none"
    ),
    Field("time_stamp", "uint64", "", "time stamp as the file has it; 0 if none"),
)
ORIGINS = Collection(
    "origins",
    "where each element (of a reconstructed file: each candidate's element) lies in the file that"
    " was read; only without truth",
    (
        Field("collection", "uint32", "", "ID of the collection, which the file's metadata name"),
        Field("index", "int32", "", "row of the collection within the event"),
    ),
)

# A training shard: flat lists per event, ready for the loader.
MAY_LACK = ("weight",)  # shards of unweighted events from before it was a column
SHARD = (
    Field("event_id", "uint64", "", "the event's identity"),
    Field("sample", "string", "", "sample that the event comes from"),
    Field(
        "weight", "float64", "", "the event's weight, not negative; 1 where the column is missing"
    ),
    Field("n_elements", "int32", "", "tracks + clusters"),
    Field("element_type", "list<int8>", "", "1 + index in ELEMENT_TYPES"),
    Field(
        "features",
        "list<float32>",
        "",
        "raw features, row-major [n_elements, n_features]; unused columns are 0",
    ),
    Field("target_class", "list<int8>", "", "class of the target"),
    Field("target_charge", "list<int8>", "e", "charge of the target"),
    Field(
        "target_p4",
        "list<float32>",
        "GeV",
        "px, py, pz, energy, row-major [n_elements, 4]; 0 where class is none",
    ),
    Field(
        "share_host",
        "list<int32>",
        "",
        f"elements that a cluster's energy belongs to, row-major [n_elements, {N_SHARES}], or -1",
    ),
    Field(
        "share",
        "list<float32>",
        "",
        f"share of each of these, then of no host, row-major [n_elements, {N_SHARES + 1}]; 0 for"
        " tracks and where deposits are not known",
    ),
)


def element_types(described: Container[str]) -> tuple[str, str]:
    """Return the element types, in order of their ids, of data whose types are ``described``."""
    return ELEMENT_TYPES[0], ELEMENT_TYPES[1] if ELEMENT_TYPES[1] in described else "hit"


def calorimeter_type(members: Container[str]) -> str:
    """Return what a table's ``clusters`` are by their members: ``cluster`` or ``hit``."""
    return "hit" if TELLS_HITS in members else "cluster"


def member_of(feature: str, element_type: str) -> str:
    """Return the member of an element's record that a feature, derived or not, is computed from."""
    if feature not in DERIVED_FEATURES:
        return feature
    angle = feature.partition("_")[2]
    # a cluster or hit is in the calorimeter already
    return angle if element_type == "track" else "phi"
