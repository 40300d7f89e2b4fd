"""What became of the visible energy of each input file of a dataset, and why, as a table.

Inputs -> outputs: metadata of dataset files (``build``) -> ``Account``s, rows and text. Only file
footers are read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from particleforge.dataset.balance import DROPPED, INVISIBLE, Balance
from particleforge.errors import UserError
from particleforge.pages.terminal import table_lines
from particleforge.stored import Stored, held_to
from particleforge.tables import parquet


def _short(reason: str) -> str:
    return reason.replace("dropped_", "as ").replace("_", " ")


HEADS = (
    *(
        "file",
        "events",
        "generated [GeV]",
        *INVISIBLE,
        "visible [GeV]",
        "targets",
        "of it merged",
        "dropped",
    ),
    *(_short(name) for name in DROPPED),
    "orphan deposits",
)
LEGEND = (
    "Not visible, in shares of the generated energy: "
    + "; ".join(f"{name}: {text}" for name, text in INVISIBLE.items())
    + ".",
    "In shares of the visible energy: targets: owned by an element; merged: added to the owner of a"
    " shared cluster; dropped: lost, "
    + "; ".join(f"{_short(name)}: {text}" for name, text in DROPPED.items())
    + ".",
    "Orphan deposits, in shares of the calorimeter energy that is linked to particles: of those for"
    " which no truth particle stands.",
)


class FileEntry(BaseModel):
    """A file of a dataset, in its metadata."""

    file: str
    events: int = Field(ge=0)
    counts: dict[str, int]
    energy_balance_gev: dict[str, float]


class LeftOut(BaseModel):
    """A file that is not in the dataset, in its metadata."""

    file: str
    reason: str


class SampleSettings(BaseModel):
    """What is read of the settings of a stage."""

    sample_name: str


class MadeBy(BaseModel):
    """What is read of how a table was made."""

    settings: SampleSettings


class DatasetMetadata(Stored):
    """What is read of the metadata of a dataset with truth."""

    KIND = parquet.DATASET
    REMEDY = "rerun build_dataset"
    provenance: MadeBy
    counts: dict[str, int] = Field(default_factory=dict)
    files: list[FileEntry] = Field(default_factory=list)
    quarantined: list[LeftOut] = Field(default_factory=list)

    @property
    def sample(self) -> str:
        """The sample, as the settings of the stage have it."""
        return self.provenance.settings.sample_name


@dataclass(frozen=True)
class Account:
    """What became of the energy of one input file, or of several."""

    sample: str
    name: str
    events: int
    balance: Balance

    @property
    def dropped_fraction(self) -> float:
        """Share of the visible energy that finds no element."""
        return self.balance.dropped / self.balance.visible if self.balance.visible else 0.0


def read_accounts(datasets: Iterable[Path]) -> list[Account]:
    """Return one account for each file that the datasets were made of.

    A file that is no dataset is a UserError.
    """
    found = []
    for path in datasets:
        metadata = parquet.require_truth(path)
        if "files" not in metadata or "energy_balance_gev" not in metadata:
            raise UserError(
                f"{path}: holds no energy accounting; give files that build-dataset wrote, or build"
                " this one again"
            )
        told = held_to(DatasetMetadata, metadata, path)
        try:
            for entry in told.files:
                counts = {name: n for name, n in entry.counts.items() if name.startswith("n_")}
                values: dict[str, Any] = {**entry.energy_balance_gev, **counts}
                balance = Balance(**values)
                found.append(Account(told.sample, entry.file, entry.events, balance))
        except (LookupError, TypeError) as error:
            raise UserError(
                f"{path}: its energy accounting is damaged ({error}); {told.REMEDY}"
            ) from error
    return found


def total_of(accounts: Sequence[Account], sample: str, name: str) -> Account:
    """Return the sum of accounts under a name."""
    balance = Balance()
    for account in accounts:
        balance.add(account.balance)
    return Account(sample, name, sum(account.events for account in accounts), balance)


def row(account: Account) -> tuple[str, ...]:
    """Return an account as cells under ``HEADS``."""
    energies = account.balance.energies_gev()
    return (
        account.name,
        str(account.events),
        f"{energies['generated']:.1f}",
        *(_percent(energies[name], energies["generated"]) for name in INVISIBLE),
        f"{energies['visible']:.1f}",
        *(
            _percent(energies[name], energies["visible"])
            for name in ("target", "merged", "dropped", *DROPPED)
        ),
        _percent(energies["orphan_deposits"], energies["deposits"]),
    )


def accounting_text(datasets: Sequence[Path]) -> str:
    """Return the table as text, one line per file and, of several, their sum."""
    accounts = read_accounts(datasets)
    if len(accounts) > 1:
        accounts.append(total_of(accounts, "", "all"))
    table = [("sample", *HEADS), *((account.sample, *row(account)) for account in accounts)]
    lines = table_lines(table, right=range(2, len(table[0])))
    return "\n".join([*lines, "", *LEGEND])


def accounting_plain(datasets: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the accounts as JSON values."""
    return [asdict(account) for account in read_accounts(datasets)]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"
