"""Every path of the workflow, once, as patterns with wildcards below ``<results_dir>/{detector}/``.

Rules use the patterns as they are; Python code fills them with ``str.format``. Nothing else in the
project spells a result's path.
"""

from dataclasses import dataclass

SHARD_FORMAT = "{:05d}"
APPLIED = "apply"  # a target, and the files of apply.files as a sample
SPLITS = ("train", "valid", "test")
HPO_PLOTS = ("history", "rungs", "timeline", "importances", "parallel", "cost")
SCAN_PLOTS = {
    "scaling_batch": ("scaling_batch", "scaling_batch_curves"),
    "fine_tuning": ("fine_tuning", "fine_tuning_curves"),
    "scaling_law": ("scaling_law_events", "scaling_law_parameters"),
}


@dataclass(frozen=True)
class Paths:
    """Path patterns of one results folder; what stands in braces is a wildcard."""

    results_dir: str = "results"

    @property
    def root(self) -> str:
        """The folder of one detector."""
        return f"{self.results_dir}/{{detector}}"

    @property
    def simulated(self) -> str:
        """EDM4hep ROOT file of one shard of one sample."""
        return f"{self.root}/sim/{{sample}}/{{shard}}.root"

    @property
    def fetched(self) -> str:
        """ROOT file of another machine, below host and path of its URL."""
        return f"{self.root}/files/{{sample}}/{{source}}"

    @property
    def file_numbers(self) -> str:
        """JSON, which shard of the dataset each given file of a sample belongs to."""
        return f"{self.root}/files/{{sample}}.json"

    @property
    def dataset(self) -> str:
        """Parquet, one row per event (schema.DATASET)."""
        return f"{self.root}/dataset/{{sample}}/{{shard}}.parquet"

    @property
    def checks_work(self) -> str:
        """Folder that outlives retries: statistics of the dataset's shards, failed verdicts."""
        return f"{self.root}/checks/work"

    @property
    def sample_verdict(self) -> str:
        """JSON, the verdict on one sample of the dataset."""
        return f"{self.root}/checks/dataset/{{sample}}.json"

    @property
    def dataset_verdict(self) -> str:
        """JSON, the verdict on all samples of the dataset."""
        return f"{self.root}/checks/dataset.json"

    @property
    def shards_verdict(self) -> str:
        """JSON, the verdict on the training shards."""
        return f"{self.root}/checks/shards.json"

    @property
    def selected(self) -> str:
        """Parquet, the dataset's rows that pass the cuts, with their split."""
        return f"{self.root}/select/{{sample}}/{{shard}}.parquet"

    @property
    def cutflow(self) -> str:
        """JSON with the counts of one shard after each cut."""
        return f"{self.root}/select/{{sample}}/{{shard}}.cutflow.json"

    @property
    def cutflow_table(self) -> str:
        """CSV, the cutflow of all samples."""
        return f"{self.root}/select/cutflow.csv"

    @property
    def cutflow_plot(self) -> str:
        """PNG, the cutflow of all samples (a PDF lies beside it)."""
        return f"{self.root}/select/cutflow.png"

    @property
    def manifest(self) -> str:
        """JSON index of the training shards."""
        return f"{self.root}/shards/manifest.json"

    @property
    def normalisation(self) -> str:
        """JSON with the feature statistics of the train split."""
        return f"{self.root}/shards/normalisation.json"

    def shards(self, split: str) -> str:
        """Folder of one split's Parquet shards."""
        return f"{self.root}/shards/{split}"

    @property
    def hpo_work(self) -> str:
        """Folder that outlives retries: the study's journal and the trials' checkpoints."""
        return f"{self.root}/hpo/work"

    @property
    def hpo_slot(self) -> str:
        """JSON result of one (rung, slot) of the search."""
        return f"{self.root}/hpo/slots/{{rung}}/{{slot}}.json"

    @property
    def hpo_confirmation(self) -> str:
        """JSON result of training one of the search's best configurations from a further seed."""
        return f"{self.root}/hpo/confirm/{{place}}-{{seed}}.json"

    @property
    def hpo_best(self) -> str:
        """YAML with the winning model and training settings."""
        return f"{self.root}/hpo/best.yaml"

    @property
    def hpo_trials(self) -> str:
        """CSV, one row per trial."""
        return f"{self.root}/hpo/trials.csv"

    def hpo_plot(self, name: str) -> str:
        """PNG of the search, one of ``HPO_PLOTS`` (a PDF lies beside each)."""
        return f"{self.root}/hpo/{name}.png"

    @property
    def train_work(self) -> str:
        """Folder that outlives retries: checkpoints to resume from."""
        return f"{self.root}/train/work"

    @property
    def model(self) -> str:
        """The best checkpoint of the final training: weights, settings, normalisation."""
        return f"{self.root}/train/best.pt"

    @property
    def last_model(self) -> str:
        """The last checkpoint of the final training."""
        return f"{self.root}/train/last.pt"

    @property
    def metrics(self) -> str:
        """Parquet, one row per logged step of the final training."""
        return f"{self.root}/train/metrics.parquet"

    @property
    def tensorboard(self) -> str:
        """Folder of TensorBoard event files."""
        return f"{self.root}/train/tensorboard"

    @property
    def scan_work(self) -> str:
        """Folder of one training of a scan that outlives retries."""
        return f"{self.root}/scans/{{scan}}/work/{{point}}"

    @property
    def scan_point(self) -> str:
        """JSON result of one training of a scan."""
        return f"{self.root}/scans/{{scan}}/points/{{point}}.json"

    @property
    def scan(self) -> str:
        """JSON, what a scan found."""
        return f"{self.root}/scans/{{scan}}.json"

    @property
    def scan_table(self) -> str:
        """CSV, one row per training of a scan."""
        return f"{self.root}/scans/{{scan}}.csv"

    @property
    def scan_plots(self) -> str:
        """Folder of a scan's plots, PNG and PDF."""
        return f"{self.root}/scans/{{scan}}/plots"

    @property
    def onnx(self) -> str:
        """The exported model."""
        return f"{self.root}/export/model.onnx"

    @property
    def parity(self) -> str:
        """JSON, ONNX against torch on real events."""
        return f"{self.root}/export/parity.json"

    @property
    def model_card(self) -> str:
        """Markdown description of the exported model."""
        return f"{self.root}/export/model_card.md"

    @property
    def reconstructed(self) -> str:
        """Parquet, candidates of the model, one row per event (schema.RECONSTRUCTED)."""
        return f"{self.root}/reco/{{sample}}/{{shard}}.parquet"

    @property
    def reconstructed_edm4hep(self) -> str:
        """EDM4hep ROOT file with the candidates as ReconstructedParticles."""
        return f"{self.root}/reco/{{sample}}/{{shard}}.root"

    @property
    def applied(self) -> str:
        """Parquet, candidates in one of the files of apply.files."""
        return f"{self.root}/apply/{{applied}}.parquet"

    @property
    def applied_edm4hep(self) -> str:
        """EDM4hep ROOT file with the candidates in one of the files of apply.files."""
        return f"{self.root}/apply/{{applied}}.root"

    @property
    def physics_metrics(self) -> str:
        """JSON, all figures of the physics validation."""
        return f"{self.root}/validate/metrics.json"

    @property
    def histograms(self) -> str:
        """JSON, the histograms behind every validation plot."""
        return f"{self.root}/validate/histograms.json"

    @property
    def validation_plots(self) -> str:
        """Folder of validation plots, PNG and PDF."""
        return f"{self.root}/validate/plots"

    @property
    def report(self) -> str:
        """Self-contained HTML report."""
        return f"{self.root}/report.html"

    def log(self, rule: str, *wildcards: str) -> str:
        """Log file of a rule's job, e.g. ``paths.log("simulate_events", "sample", "shard")``."""
        return (
            "/".join([f"{self.root}/logs", rule, *(f"{{{name}}}" for name in wildcards)]) + ".log"
        )

    def benchmark(self, rule: str, *wildcards: str) -> str:
        """Resource use of a rule's job, as Snakemake samples it: at times up to 30 s apart."""
        return (
            "/".join([f"{self.root}/benchmarks", rule, *(f"{{{name}}}" for name in wildcards)])
            + ".tsv"
        )
