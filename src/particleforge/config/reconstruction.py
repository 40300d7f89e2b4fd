"""Export of the model and its application to events."""

from typing import Literal

from pydantic import Field

from particleforge.config.base import Block


class ExportConfig(Block):
    """ONNX export and its parity gate."""

    opset: int = Field(20, ge=18, le=23)
    score_tolerance: float = Field(
        1e-4, gt=0, description="largest absolute difference of class scores and weights to torch"
    )
    momentum_tolerance: float = Field(
        1e-4, gt=0, description="largest relative difference of momenta to torch"
    )
    parity_events: int = Field(64, ge=1, description="real events of the parity gate")
    threshold_events: int = Field(
        1000,
        ge=1,
        description=(
            "events of the valid split that the presence threshold of particle lists is chosen on"
        ),
    )
    latents: bool = Field(
        False,
        exclude_if=lambda wanted: not wanted,
        description="one more output of the model: each element's last embedding, before the heads",
    )


class ReconstructionConfig(Block):
    """Event reconstruction with onnxruntime."""

    splits: tuple[Literal["train", "valid", "test"], ...] = Field(
        ("test",),
        min_length=1,
        description=(
            "splits of a selected file that are reconstructed; a dataset is reconstructed whole"
        ),
    )
    collection: str = Field(
        "MLPFCandidates",
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$",
        description="name of the collection in the EDM4hep file",
    )
    copy_collections: bool = Field(
        False,
        exclude_if=lambda wanted: not wanted,
        description=(
            "copy the tracks and clusters that candidates refer to from the input; of EDM4hep"
            " files (2023 on) that are reconstructed or applied to without truth"
        ),
    )
    elements_per_batch: int = Field(
        1024,
        ge=64,
        description=(
            "elements of one inference batch, padding included; CPUs are fastest with few"
        ),
    )
    presence_min: float = Field(
        0.02,
        ge=0,
        lt=1,
        description=(
            "a candidate is kept where its weight (docs/model.md) is above this; at"
            " most the model's presence threshold"
        ),
    )
    latents: bool = Field(
        False,
        exclude_if=lambda wanted: not wanted,
        description=(
            "write the latents of each candidate's element, as float16, beside the candidates in"
            " Parquet; of a model that was exported with export.latents"
        ),
    )
    threads: int = Field(
        1, ge=1, description="threads of onnxruntime; with more than one a given file is read ahead"
    )
    execution_providers: tuple[str, ...] = Field(
        ("CPUExecutionProvider",),
        min_length=1,
        exclude_if=lambda wanted: wanted == ("CPUExecutionProvider",),
        description=(
            "execution providers of onnxruntime in the order of preference, for example"
            " CUDAExecutionProvider, CPUExecutionProvider; one that the installed onnxruntime"
            " lacks is passed over with a warning"
        ),
    )
