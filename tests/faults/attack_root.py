"""ROOT files that were changed: the attempts of ``fuzzing``, without end."""

from pathlib import Path

from .attacks import REFUSED, SILENT, SURVIVED, TRACEBACK
from .fuzzing import BYTES, FORMATS, SECONDS, Worker, mutations_of


class Root:
    """Attempts on ROOT files, in a process with limits of memory and time."""

    def __init__(self, folder: Path) -> None:
        self._worker = Worker(SECONDS)

    def close(self) -> None:
        self._worker.close()

    def attempt(self, number: int) -> tuple[str, str]:
        kind = list(FORMATS)[number % len(FORMATS)]
        mutations = [*BYTES, *mutations_of(kind)]
        case = kind, mutations[number // len(FORMATS) % len(mutations)], number
        what, said = self._worker.ask(case)
        if what in ("wrong", "hung", "died"):
            lines = "Traceback" in said or what != "wrong"
            return TRACEBACK if lines else SILENT, f"{case}: {what}: {said}"
        return REFUSED if what == "refused" else SURVIVED, said
