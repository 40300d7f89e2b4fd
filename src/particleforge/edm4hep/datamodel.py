"""The part of the EDM4hep data model that this project writes, once.

Data types -> members (leaf names and NumPy types), relations and vector members. Names and types
follow EDM4hep 0.99 as found in Key4hep files (Gaede et al. 2022, "EDM4hep - a common event data
model for HEP experiments"; https://edm4hep.web.cern.ch). Members that hold covariance matrices are
left out: nothing here fills or reads them.

On file a collection X is a list of records ``X.<member>``; a one-to-many relation r has
``X.r_begin`` and ``X.r_end`` and the list ``_X_r.index`` / ``_X_r.collectionID``; a one-to-one
relation has one entry per row in ``_X_r``; a vector member v has ``X.v_begin``, ``X.v_end`` and the
list ``_X_v``. Indices count within the event. A collection of user data X is the list ``X`` itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

VERSION = (0, 99, 2)
MCPARTICLE = "edm4hep::MCParticle"
TRACK = "edm4hep::Track"
RECDQDX = "edm4hep::RecDqdx"
CALORIMETER_HIT = "edm4hep::CalorimeterHit"
CLUSTER = "edm4hep::Cluster"
RECONSTRUCTED_PARTICLE = "edm4hep::ReconstructedParticle"
EVENT_HEADER = "edm4hep::EventHeader"
USER_FLOATS = "podio::UserDataCollection<float>"
LINK = "podio::Link"


@dataclass(frozen=True)
class DataType:
    """One EDM4hep type; vector members are a NumPy type, or members of a component."""

    members: Mapping[str, str]
    to_one: tuple[str, ...] = ()
    to_many: tuple[str, ...] = ()
    vectors: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)


def _vector(name: str, dtype: str) -> dict[str, str]:
    """Return the members of a three-vector."""
    return {f"{name}.{axis}": dtype for axis in "xyz"}


TRACK_STATE = {
    "location": "int32",
    "D0": "float32",
    "phi": "float32",
    "omega": "float32",
    "Z0": "float32",
    "tanLambda": "float32",
    "time": "float32",
    **_vector("referencePoint", "float32"),
}
CREATED_IN_SIMULATION = 1 << 30  # bit of MCParticle.simulatorStatus
AT_OTHER, AT_IP, AT_FIRST_HIT, AT_CALORIMETER = 0, 1, 2, 4  # TrackState.location

TYPES: Mapping[str, DataType] = {
    EVENT_HEADER: DataType(
        {
            "eventNumber": "uint64",
            "runNumber": "uint32",
            "timeStamp": "uint64",
            "weight": "float64",
        },
        vectors={"weights": "float64"},
    ),
    MCPARTICLE: DataType(
        {
            "PDG": "int32",
            "generatorStatus": "int32",
            "simulatorStatus": "int32",
            "charge": "float32",
            "time": "float32",
            "mass": "float64",
            **_vector("vertex", "float64"),
            **_vector("endpoint", "float64"),
            **_vector("momentum", "float64"),
            **_vector("momentumAtEndpoint", "float64"),
        },
        to_many=("parents", "daughters"),
    ),
    TRACK: DataType(
        {"type": "int32", "chi2": "float32", "ndf": "int32", "Nholes": "int32"},
        to_many=("trackerHits", "tracks"),
        vectors={
            "subdetectorHitNumbers": "int32",
            "subdetectorHoleNumbers": "int32",
            "trackStates": TRACK_STATE,
        },
    ),
    RECDQDX: DataType(
        {"dQdx.type": "int16", "dQdx.value": "float32", "dQdx.error": "float32"}, to_one=("track",)
    ),
    CALORIMETER_HIT: DataType(
        {
            "cellID": "uint64",
            "energy": "float32",
            "energyError": "float32",
            "time": "float32",
            **_vector("position", "float32"),
            "type": "int32",
        }
    ),
    CLUSTER: DataType(
        {
            "type": "int32",
            "energy": "float32",
            "energyError": "float32",
            **_vector("position", "float32"),
            "iTheta": "float32",
            "phi": "float32",
        },
        to_many=("clusters", "hits"),
        vectors={"shapeParameters": "float32", "subdetectorEnergies": "float32"},
    ),
    RECONSTRUCTED_PARTICLE: DataType(
        {
            "PDG": "int32",
            "energy": "float32",
            **_vector("momentum", "float32"),
            **_vector("referencePoint", "float32"),
            "charge": "float32",
            "mass": "float32",
            "goodnessOfPID": "float32",
        },
        to_one=("decayVertex",),
        to_many=("clusters", "tracks", "particles"),
    ),
    LINK: DataType({"weight": "float32"}, to_one=("from", "to")),
}
