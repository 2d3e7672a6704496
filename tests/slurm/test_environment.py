import pytest

from anti_i2v_lit.slurm.environment import check_layout, slurm_task

# As SLURM 22.05 sets them for a task of `srun` in a job of two nodes.
STEP = {
    "SLURM_JOB_ID": "31",
    "SLURM_JOB_NAME": "cloak-nodes",
    "SLURM_PROCID": "3",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURMD_NODENAME": "n2",
}


def task(**changes):
    return slurm_task({**STEP, **changes})


def test_a_task_knows_its_place():
    found = task(SLURM_RESTART_COUNT="2")
    assert (found.rank, found.num_tasks, found.num_nodes, found.restarts) == (3, 4, 2, 2)
    assert found.name == "31" and found.node == "n2" and found.by_srun
    assert check_layout(found, None, None) == (2, 2)
    assert str(found) == "job 31, task 3 of 4 on n2"


def test_the_last_task_of_an_array_is_not_named_by_the_arrays_id():
    found = task(SLURM_ARRAY_JOB_ID="31", SLURM_ARRAY_TASK_ID="7")
    assert found.name == "31_7"


def test_outside_a_batch_job_there_is_no_task():
    assert slurm_task({}) is None
    assert slurm_task({"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "x"}) is None
    assert task(SLURM_JOB_NAME="bash") is None and task(SLURM_JOB_NAME="interactive") is None


@pytest.mark.parametrize("devices", [None, "auto", 2, "2", [0, 1]])
def test_the_right_layout_is_taken(devices):
    assert check_layout(task(), devices, 2) == (2, 2)


@pytest.mark.parametrize(
    ("changes", "devices", "nodes", "message"),
    [
        ({}, 1, None, "trainer.devices=1.*2 task.*--ntasks-per-node=1"),
        ({}, [0, 1, 2], None, "--ntasks-per-node=3"),
        ({}, None, 1, "trainer.num_nodes=1.*2 node.*--nodes=1"),
        ({"SLURM_STEP_ID": ""}, None, None, "put `srun` before"),
        ({"SLURM_TASKS_PER_NODE": "3,1"}, None, None, "unevenly"),
        ({"SLURM_NTASKS": "3"}, None, None, "unevenly"),
        ({"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, 2, None, "--ntasks-per-node=2"),
    ],
)
def test_a_wrong_layout_is_refused_with_the_remedy(changes, devices, nodes, message):
    with pytest.raises(ValueError, match=message):
        check_layout(task(**changes), devices, nodes)


def test_tasks_without_a_number_per_node_are_refused():
    env = {k: v for k, v in STEP.items() if k != "SLURM_NTASKS_PER_NODE"}
    with pytest.raises(ValueError, match="no --ntasks-per-node"):
        check_layout(slurm_task(env), None, None)
