# The jobs of `particleforge check-cluster`: named after rules of the workflow, so that the profile treats them alike.
import sys

for kind, asked in config["jobs"].items():

    rule:
        name:
            asked["rule"]
        output:
            f"{kind}.json",
        log:
            f"{kind}.log",
        threads: asked["threads"]
        resources:
            **asked["resources"],
        params:
            kind=kind,
            python=sys.executable,
        shell:
            "{params.python:q} -m particleforge.cluster.probe {params.kind} $PWD/{output:q} > {log:q} 2>&1"
