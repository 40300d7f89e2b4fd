"""The private cluster itself: two nodes that share files but not processes."""

from cluster import NODES


def test_two_nodes_run_one_step(cluster):
    text = cluster.call("srun", "--nodes=2", "--ntasks=2", "hostname")
    assert sorted(text.split()) == sorted(NODES)
