"""A published data set: the content of ``config/published/<name>.yaml``."""

from pydantic import Field

from particleforge.config.base import Block, Name
from particleforge.config.detector import Samples


class PublishedConfig(Block):
    """What a data set is, where it is published, and its samples.

    The samples take the place of those of the detector's file.
    """

    title: str
    reference: str = Field(description="where it is described, a DOI or URL")
    licence: str = Field(description="under which it may be used")
    detector: Name = Field(description="file of config/detectors by which it is read")
    expects: str = Field(
        description=(
            "what the reader expects of the files, and how to get them into that form if they are"
            " published in another"
        )
    )
    samples: Samples = Field(min_length=1)
