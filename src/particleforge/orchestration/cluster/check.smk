# The jobs of `particleforge check-cluster`: named after rules of the workflow, so that the profile treats them alike.
import sys

for kind, asked in config["jobs"].items():

    rule:
        name:
            asked["rule"]
        output:
            touch(f"{kind}.done"),
        log:
            f"{kind}.log",
        threads: asked["threads"]
        resources:
            **asked["resources"],
        params:
            kind=kind,
            answer=f"{kind}.json",  # no output: those of failed jobs are deleted
            python=sys.executable,
        shell:
            "{params.python:q} -m particleforge.orchestration.cluster.probe {params.kind} $PWD/{params.answer:q} > {log:q} 2>&1"
