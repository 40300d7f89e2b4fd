"""A private two-node Slurm cluster on this machine: munge, slurmctld and two slurmd with fake GPUs.

Everything runs in mount and process namespaces of its own, in which a private folder lies over
/etc/slurm: the executor plugin's job step drops SLURM_CONF, so the configuration must be at its
default place, but the machine's own must not be touched. Ending the first process of the namespace
ends every process of the cluster, jobs included. Several clusters can run side by side. Each node
is one more such namespace with a host name of its own, so a process sees none of another node's,
and a node is cut off by ending one process. The nodes share the file system and the network of this
machine.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from chain import PATIENCE_S, Chain, environment

PROGRAMS = (
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scontrol",
    "unshare",
    "nsenter",
)
NODES = ("n1", "n2")
STARTS_WITHIN_S = 600  # even on a busy machine
_SYSTEM_PATH = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
_REAP = (  # the first process of a namespace inherits orphans: bash collects them
    "while true; do sleep 3600 & wait; done"
)
_SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_min_interval=100000,bf_interval=2
KillWait=10
# longer than any test; at 0, for ever, the executor takes squeue for unreliable and asks an
# accounting database that is not here
MinJobAge=7200
SlurmdTimeout=10
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_1} \
CPUs={cpus} RealMemory=32000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port_2} \
CPUs={cpus} RealMemory=32000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
# its jobs put those of the others back into the queue
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""
# what differs from a real site: no accounting database, two nodes, and a test does not want to wait
SITE_OPTIONS = (
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "2"),
    *("--seconds-between-status-checks", "2"),
    *("--latency-wait", "20"),
)

# the chain that most tests share: one shard of each sample, trainings of two ranks on two nodes
SMALL = (
    "preset=tiny",
    "simulation={events_per_sample: 24, events_per_shard: 24}",
    "training={ranks: 2}",
    "hpo={ranks: 2}",
    "resources={run_hpo_slot: {nodes: 2}, train_model: {nodes: 2}}",
)


def why_not() -> str | None:
    """Return why no cluster can be started here, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_SYSTEM_PATH) is None]
    if missing:
        return (
            f"Slurm is not installed ({', '.join(missing)} missing): apt-get install slurm-wlm"
            " munge"
        )
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        env={"PATH": _SYSTEM_PATH},
    )
    return f"no private namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Return when ``condition()`` is true; fail when even a busy machine would have come to it."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {STARTS_WITHIN_S:g} s"
        time.sleep(0.1)


@dataclass
class Cluster:
    """A running cluster; ``stop`` ends it and everything on it."""

    folder: Path
    cpus_per_node: int = 8
    _init: subprocess.Popen[str] | None = field(default=None, repr=False)
    _pid: int = 0
    _nodes: dict[str, subprocess.Popen[str]] = field(default_factory=dict, repr=False)

    # ---- life

    def start(self) -> None:
        """Start the daemons and return when both nodes are idle."""
        self._write_configuration()
        etc = self.folder / "etc"
        mounts = f"mount --bind {etc} /etc/slurm && mount --bind {etc}/hosts /etc/hosts"
        script = f"{mounts} && echo ready && {_REAP}"
        command = [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            script,
        ]
        self._init = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=self._environment()
        )
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == "ready\n", "the namespace did not come up"
        self._pid = int(Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text())
        files = {
            "key-file": "key",
            "socket": "sock",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        self.call(
            "munged",
            "--force",
            *(f"--{option}={self.folder}/munge.{suffix}" for option, suffix in files.items()),
        )
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle()

    def stop(self) -> None:
        """End every process of the cluster."""
        if self._init is not None:
            self._init.kill()  # the kernel ends all others of the namespace
            self._init.wait()
            for process in self._nodes.values():
                process.wait()
            self._nodes.clear()
            if self._init.stdout is not None:
                self._init.stdout.close()
            self._init = None

    def start_controller(self) -> None:
        """Start slurmctld, which reads the state that an earlier one saved."""
        self.call("slurmctld")
        wait_for(
            lambda: "is UP" in self.call("scontrol", "ping", check=False), "start of slurmctld"
        )

    def stop_controller(self) -> None:
        """Kill slurmctld as a crash would."""
        self.call("pkill", "-KILL", "slurmctld")

    def start_node(self, node: str) -> None:
        """Boot a node."""
        script = f"hostname {node} && slurmd -N {node} && {_REAP}"
        command = [
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            script,
        ]
        self._nodes[node] = self.popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop_node(self, node: str) -> None:
        """Cut a node's power: its slurmd and all that runs on it are gone at once."""
        process = self._nodes.pop(node)
        for unshare in psutil.Process(process.pid).children():
            unshare.kill()
        process.wait()

    def wait_until_idle(self) -> None:
        """Return when every node takes jobs."""
        wait_for(
            lambda: sorted(self.node_states().items()) == [(node, "idle") for node in NODES],
            "return of the nodes",
        )

    def reset(self) -> None:
        """End all jobs and bring back what a test took down."""
        if "is UP" not in self.call("scontrol", "ping", check=False):
            self.start_controller()
        for node in NODES:
            if node not in self._nodes:
                self.start_node(node)
        self.call("scancel", "--user=root", check=False)
        self.call("bash", "-c", "scontrol update nodename=n1,n2 state=resume", check=False)
        self.wait_until_idle()

    # ---- use

    def popen(
        self, command: Sequence[str], cwd: Path | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command inside the cluster, as a user on its login node does."""
        inside = [
            "nsenter",
            f"--mount=/proc/{self._pid}/ns/mnt",
            f"--pid=/proc/{self._pid}/ns/pid",
            f"--wd={cwd or self.folder}",
        ]
        return subprocess.Popen([*inside, *command], text=True, env=self._environment(), **options)

    def call(
        self, *command: str, cwd: Path | None = None, check: bool = True, timeout_s: float = 600
    ) -> str:
        """Run a command inside the cluster and return what it printed."""
        process = self.popen(
            command, cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        text = process.communicate(timeout=timeout_s)[0]
        assert process.returncode == 0 or not check, f"{' '.join(command)}: {text[-6000:]}"
        return text

    def call_on(self, node: str, *command: str) -> str:
        """Run a command on a node, outside any job, and return what it printed."""
        unshare = psutil.Process(self._nodes[node].pid).children()[0]
        first = unshare.children()[0].pid
        inside = [
            "nsenter",
            f"--mount=/proc/{first}/ns/mnt",
            f"--pid=/proc/{first}/ns/pid",
            f"--uts=/proc/{first}/ns/uts",
        ]
        return subprocess.run(
            [*inside, *command],
            check=True,
            capture_output=True,
            text=True,
            env=self._environment(),
            timeout=600,
        ).stdout

    def snakemake(
        self,
        chain: Chain,
        *arguments: str,
        config: tuple[str, ...] = (),
        check: bool = True,
        timeout_s: float = PATIENCE_S,
    ) -> str:
        """Run Snakemake with the shipped Slurm profile in a chain's folder and return what it
        printed.
        """
        return self.call(
            *self.snakemake_command(chain, *arguments, config=config),
            cwd=chain.folder,
            check=check,
            timeout_s=timeout_s,
        )

    def snakemake_command(
        self, chain: Chain, *arguments: str, config: tuple[str, ...] = ()
    ) -> list[str]:
        """Return the command of ``snakemake``."""
        _, *options = chain.command(*arguments, *SITE_OPTIONS, config=config, profile="slurm")
        return [sys.executable, str(Path(__file__).with_name("head.py")), *options]

    def node_states(self) -> dict[str, str]:
        """Return each node's state as ``sinfo`` says it."""
        lines = self.call("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %T", check=False).splitlines()
        return dict(line.split() for line in lines if len(line.split()) == 2)

    def jobs(self) -> dict[str, dict[str, str]]:
        """Return what the controller remembers of every job, finished ones too: job id -> field ->
        value.
        """
        lines = self.call("scontrol", "show", "jobs", "--oneliner", check=False).splitlines()
        records = [
            dict(item.partition("=")[::2] for item in line.split() if "=" in item) for line in lines
        ]
        return {record["JobId"]: record for record in records if "JobId" in record}

    def jobs_of(self, chain: Chain) -> list[dict[str, str]]:
        """Return the jobs of a chain's folder, oldest first."""
        own = [job for job in self.jobs().values() if job["WorkDir"] == str(chain.folder)]
        return sorted(own, key=lambda job: int(job["JobId"]))

    def _write_configuration(self) -> None:
        host, etc = socket.gethostname().partition(".")[0], self.folder / "etc"
        for path in (etc, self.folder / "state"):
            path.mkdir(parents=True)
        port, port_1, port_2 = _free_ports(3)
        text = _SLURM_CONF.format(
            host=host,
            folder=self.folder,
            port=port,
            port_1=port_1,
            port_2=port_2,
            cpus=self.cpus_per_node,
        )
        (etc / "slurm.conf").write_text(text)
        (etc / "hosts").write_text(f"127.0.0.1 localhost {host} {' '.join(NODES)}\n")
        (etc / "cgroup.conf").write_text("CgroupAutomount=no\n")
        (etc / "gres.conf").write_text(
            "".join(
                f"NodeName={node} Name=gpu File={self.folder}/{node}gpu[0-1]\n" for node in NODES
            )
        )
        for node in NODES:
            for number in range(2):
                (self.folder / f"{node}gpu{number}").touch()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)

    def _environment(self) -> Mapping[str, str]:
        clean = {
            name: value
            for name, value in environment().items()
            if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))
        }
        return clean | {"PATH": os.pathsep.join((clean["PATH"], "/usr/sbin", "/sbin"))}


def _free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
