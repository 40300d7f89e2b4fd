"""The private cluster itself: two nodes that share files but not processes, and that come back."""

from cluster import NODES, wait_for


def test_two_nodes_run_one_step(cluster):
    text = cluster.call("srun", "--nodes=2", "--ntasks=2", "hostname")
    assert sorted(text.split()) == sorted(NODES)


def test_a_lost_node_gives_its_job_back(cluster):
    cluster.call("sbatch", "--requeue", "--nodelist=n1", "--output=/dev/null", "--wrap", "sleep 300")
    wait_for(lambda: "mixed" in cluster.node_states()["n1"], 20, "start of the job")
    cluster.stop_node("n1")
    wait_for(lambda: "down" in cluster.node_states()["n1"], 60, "loss of the node")
    assert [job["Restarts"] for job in cluster.jobs().values() if job["JobState"] == "PENDING"] == ["1"]
