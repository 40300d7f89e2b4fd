"""The parity gate: it passes what is equal and names what is not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from particleforge.config.model import ModelConfig
from particleforge.config.reconstruction import ExportConfig
from particleforge.config.settings import ExportSettings
from particleforge.config.simulation import SimulationConfig
from particleforge.errors import UserError
from particleforge.export.model_card import render_card
from particleforge.export.onnx_model import check
from particleforge.export.parity import Event, Parity, compare, parity_events
from particleforge.export.threshold import GRID, NOT_CHOSEN, f1_scores, presence_threshold
from particleforge.model.decode import OUTPUT_NAMES, Decoder
from particleforge.model.inputs import ModelInputs, read_manifest
from particleforge.training.loader import ShardLoader

from .synthetic_shards import N_FEATURES, random_network, write_synthetic

Change = Callable[[list[np.ndarray], dict[str, np.ndarray]], None]


class TorchSession:
    """Answers like an exported model, with the network itself, after a change to the outputs."""

    def __init__(self, decoder: Decoder, change: Change) -> None:
        self.decoder, self.change = decoder, change

    def run(self, output_names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = [
                value.numpy().copy()
                for value in self.decoder(
                    *(torch.from_numpy(feed[name]) for name in ("features", "element_type"))
                )
            ]
        self.change(outputs, feed)
        return outputs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def decoder(manifest: Path) -> Decoder:
    return Decoder(
        random_network(
            ModelInputs.from_manifest(manifest), ModelConfig(width=8, n_layers=1, n_heads=1)
        )
    )


@pytest.fixture(scope="module")
def with_latents(decoder: Decoder) -> Decoder:
    return Decoder(decoder.network, latents=True)


@pytest.fixture(scope="module")
def events(manifest: Path, decoder: Decoder) -> list[Event]:
    return parity_events(manifest, decoder.network.inputs, 12)


def gate(decoder: Decoder, events: list[Event], change: Change) -> Parity:
    config = ExportConfig()
    found = compare(decoder, TorchSession(decoder, change), events, config.score_tolerance)
    check(found, config)
    return found


def test_events_cover_the_lengths_of_the_split(events: list[Event], manifest: Path) -> None:
    lengths = [len(event.element_type) for event in events]
    assert len(events) >= 8
    assert {0, 1} <= set(lengths)
    assert max(lengths) > 15
    assert all(event.features.shape == (len(event.element_type), N_FEATURES) for event in events)
    assert all((event.element_type > 0).all() for event in events)


def test_equal_outputs_pass(decoder: Decoder, events: list[Event]) -> None:
    found = gate(decoder, events, lambda outputs, feed: None)
    assert found.score_difference < 1e-6
    assert found.momentum_difference < 1e-6
    assert found.charges_that_differ == 0
    assert found.weight_difference < 1e-6
    assert found.n_cases == len(events) + 1


def in_batch_only(change: Change) -> Change:
    return lambda outputs, feed: change(outputs, feed) if len(feed["element_type"]) > 1 else None


def shift(output: int, by: float) -> Change:
    def change(outputs: list[np.ndarray], feed: dict[str, np.ndarray]) -> None:
        outputs[output][feed["element_type"] > 0] += by

    return change


def flip_charges(outputs: list[np.ndarray], feed: dict[str, np.ndarray]) -> None:
    outputs[1] *= -1


def leak_into_padding(output: str) -> Change:
    def change(outputs: list[np.ndarray], feed: dict[str, np.ndarray]) -> None:
        outputs[(*OUTPUT_NAMES, "latents").index(output)][feed["element_type"] == 0] = 1e-3

    return change


def give_nan(outputs: list[np.ndarray], feed: dict[str, np.ndarray]) -> None:
    outputs[2][0, :1] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shift(0, 2e-4), "class scores differ from torch by 0.0002"),
        (in_batch_only(shift(0, 2e-4)), r"class scores differ .* padded to"),
        (shift(2, 1.0), r"momenta differ .* in test event \d+ \(\d+ elements"),
        (flip_charges, "charges differ from torch"),
        (shift(3, 2e-4), r"weights differ from torch by 0.0002 .*, or raise export.score_tol"),
        (leak_into_padding("p4"), "class scores differ from torch by nan"),
        (leak_into_padding("weight"), "class scores differ from torch by nan"),
        (give_nan, "momenta differ from torch by nan"),
    ],
)
def test_differences_are_caught(
    decoder: Decoder, events: list[Event], change: Change, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        gate(decoder, events, change)


def test_latents_are_what_the_heads_are_given(with_latents: Decoder, events: list[Event]) -> None:
    given: list[torch.Tensor] = []
    hook = with_latents.network.identity_head.register_forward_pre_hook(
        lambda _, inputs: given.append(inputs[0])
    )
    longest = max(events, key=lambda event: len(event.element_type))
    with torch.no_grad():
        *_, latents = with_latents(
            torch.from_numpy(longest.features[None]), torch.from_numpy(longest.element_type[None])
        )
    hook.remove()
    assert latents.shape == (1, len(longest.element_type), 8)
    assert torch.equal(latents, given[0][:, :-1])  # less the element of padding


def test_equal_latents_pass_and_only_they_are_compared(
    decoder: Decoder, with_latents: Decoder, events: list[Event]
) -> None:
    found = gate(with_latents, events, lambda outputs, feed: None)
    assert found.latent_difference is not None
    assert found.latent_difference < 1e-5
    assert gate(decoder, events, lambda outputs, feed: None).latent_difference is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_batch_only(shift(4, 0.1)), r"latents differ .* padded to .* raise export.score_tol"),
        (leak_into_padding("latents"), "class scores differ from torch by nan"),
    ],
)
def test_differences_of_latents_are_caught(
    with_latents: Decoder, events: list[Event], change: Change, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        gate(with_latents, events, change)


def test_card_states_interface_data_and_quality(
    decoder: Decoder, events: list[Event], manifest: Path
) -> None:
    found = gate(decoder, events, lambda outputs, feed: None)
    made = {
        "settings_hash": "abc",
        "inputs": {"shards/manifest.json": "f00"},
        "packages": {"torch": "2"},
    }
    saved = {
        "model": decoder.network.config.model_dump(),
        "step": 40,
        "valid_loss": 0.25,
        "provenance": made,
    }
    settings = ExportSettings(export={}, origin="read from given files")
    card = render_card(
        settings, "clic", saved, decoder.network.inputs, read_manifest(manifest), found, 0.37, 1234
    )
    for text in (
        "Detector: `clic`.",
        ", read from given files; splits",
        "`ParticleFlowNetwork` with backbone `attention`",
        "1234 parameters",
        "| cluster (2) | 4 | `energy` |",
        "| 3 | photon | 22 | no |",
        "| test | 30 |",
        "0.25000, after 40 steps",
        "with a weight of at least 0.37, chosen",
    ):
        assert text in card
    assert "`latents`" not in card
    asked = ExportSettings(export={"latents": True}, origin="")
    card = render_card(
        asked, "clic", saved, decoder.network.inputs, read_manifest(manifest), found, 0.37, 1234
    )
    assert "| `latents` | float32 | [batch, elements, 8] |" in card


def test_f1_is_that_of_counting() -> None:
    rng = np.random.default_rng(3)
    hosts = rng.random(400) < 0.3
    weight = (np.round(rng.beta(2, 2, 400) * 20) / 20).astype(np.float32)
    counted = []
    for threshold in GRID:
        called = weight >= np.float32(threshold)
        found, wrong, missed = (
            (called & hosts).sum(),
            (called & ~hosts).sum(),
            (~called & hosts).sum(),
        )
        counted.append(2 * found / (2 * found + wrong + missed))
    np.testing.assert_allclose(f1_scores(weight, hosts), counted)


class Scripted(torch.nn.Module):
    """Gives particles weights of ``lowest`` and 1, other elements 0 and ``highest``, by turns."""

    def __init__(self, decoder: Decoder, manifest: Path, lowest: float, highest: float) -> None:
        super().__init__()
        self.network = decoder.network
        loader = ShardLoader(
            manifest, "valid", decoder.network.inputs, budget=16_384, shards_in_memory=1, seed=0
        )
        (batch,) = loader.once()
        odd = (torch.arange(batch.element_type.shape[1]) % 2).float()
        self.weight = torch.where(
            batch.target_class > 0, lowest + (1 - lowest) * odd, highest * odd
        )

    def forward(self, _: torch.Tensor, element_type: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weight = self.weight * (element_type > 0)
        return weight, weight, weight, weight


@pytest.mark.parametrize(
    ("highest", "lowest", "expected"),
    [(0.195, 0.205, 0.2), (0.105, 0.305, 0.3), (0.605, 0.895, 0.61), (0.3, 0.7, 0.5)],
)
def test_the_threshold_is_the_best_of_the_valid_split(
    manifest: Path, decoder: Decoder, highest: float, lowest: float, expected: float
) -> None:
    scripted = Scripted(decoder, manifest, lowest, highest)
    assert presence_threshold(scripted, manifest, 1000) == expected


def test_a_valid_split_too_small_to_choose_on_gives_a_half(
    tmp_path: Path, decoder: Decoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for valid in (0, 2):
        manifest = write_synthetic(tmp_path / str(valid), train=(1,), valid=valid, test=1)
        assert presence_threshold(decoder, manifest, 1000) == NOT_CHOSEN
    assert "0.5, not chosen, as the valid split has 0 particles" in caplog.text


def test_no_more_events_are_seen_than_asked_for(
    manifest: Path, decoder: Decoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    presence_threshold(decoder, manifest, 1)
    assert "not chosen" in caplog.text  # one event of at most 24 elements


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "generated with Pythia 8"),
        ({"backend": "files"}, "read from given files"),
        ({"backend": "files", "published": "a_set"}, "published data set a_set"),
    ],
)
def test_the_card_is_told_where_events_come_from(changes: dict[str, str], words: str) -> None:
    assert words in SimulationConfig(**changes).origin
