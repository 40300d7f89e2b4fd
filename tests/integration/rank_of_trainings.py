"""One rank that makes several trainings, one after another, in one process group: starting ranks
takes longer than these do.
"""

import logging
import sys
from pathlib import Path

from particleforge.training.distributed import joined_workers
from particleforge.training.spec import TrainingSpec
from particleforge.training.worker import Interruption, train

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with joined_workers("cpu") as workers:
        interrupted = Interruption()
        for path in sys.argv[1:]:
            train(TrainingSpec.read(Path(path)), workers, interrupted)
