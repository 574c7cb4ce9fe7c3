import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cpu_matrix
import environments
import pytest
import reporting
from cpu_matrix import ENVIRONMENTS, FIRST, OF_COMPILED_LOOPS, RESUMED, Environment, runs_here
from environments import COMPARED, Job, Matrix

from dettriton.errors import EngineError

FACTS = {"cpu": "a cpu", "gpus": [], "packages": {"torch": "2.0", "triton": "3.0"}, "python": "3.11.0"}
DIGESTS = dict.fromkeys(COMPARED, "ab" * 32) | {"best_epoch": 1, "test": {"auc": 1.0, "acc": 1.0}}

TRAINING = """
import json, pathlib, sys, time
trace = pathlib.Path(sys.argv[1]) / "trace.jsonl"
trace.parent.mkdir(exist_ok=True)
while not trace.exists() or trace.read_bytes().count(b"\\n") < 40:
    with trace.open("a") as file:
        file.write("step\\n")
    time.sleep(0.02)
print(json.dumps(json.loads(sys.argv[2])))
"""


def job(environment=FIRST):
    return Job("med_cnn.digits", environment, FACTS)


@pytest.fixture
def matrix_of(tmp_path, monkeypatch):
    """Run the whole script with trainings that give what a function of the job says; returns code and trained jobs."""
    monkeypatch.setattr(environments.cpu_matrix, "facts", lambda environment: FACTS)
    monkeypatch.setattr(environments.zoo, "names", list)
    path = tmp_path / "matrix.json"

    def run(result):
        trained = []

        def run_job(job, *_):
            trained.append(job.environment.name)
            return result(job)

        monkeypatch.setattr(environments, "run_job", run_job)
        code = environments.main(["--entries", "med_cnn.digits", "--out", str(path), "--markdown"])
        return code, trained

    return run


def ended(job):
    return DIGESTS | {"seconds": 1.0}


def test_one_digest_everywhere_is_a_success_and_is_kept(matrix_of, capsys):
    code, trained = matrix_of(ended)
    assert code == 0 and trained == [e.name for e in (*filter(runs_here, ENVIRONMENTS), *OF_COMPILED_LOOPS, RESUMED)]
    assert capsys.readouterr().out.count("same abababababab") == len(trained)
    code, trained = matrix_of(ended)
    assert code == 0 and trained == []


def test_instructions_that_the_cpu_lacks_are_left_out(matrix_of, monkeypatch):
    monkeypatch.setattr("cpu_matrix.cpu_features", lambda: ["avx", "avx2"])
    code, trained = matrix_of(ended)
    assert code == 0 and "ATEN_CPU_CAPABILITY=avx2" in trained and "ATEN_CPU_CAPABILITY=avx512" not in trained


def test_a_process_that_ends_without_a_word_is_a_problem(monkeypatch):
    python = "/bin/false"
    result = environments.run_job(job(Environment("dumb", {}, python)), None, 1.0, random.Random(0))
    assert result["problem"] == "it ended with exit code 1"


def test_another_digest_is_a_difference(matrix_of, capsys):
    other = DIGESTS | {"weights_digest": "cd" * 32, "seconds": 1.0}
    code, _ = matrix_of(lambda job: other if job.environment.name == "1 thread" else ended(job))
    assert code == 1 and "| 1 thread | DIFFERENT cdcdcdcdcdcd |" in capsys.readouterr().out


def test_what_could_not_run_is_tried_again(matrix_of):
    code, _ = matrix_of(lambda job: {"problem": "no data", "seconds": 0.1} if job.environment.kills else ended(job))
    assert code == 2
    code, trained = matrix_of(ended)
    assert (code, trained) == (0, [RESUMED.name])


def test_results_that_differ_from_the_release_are_different(matrix_of, monkeypatch):
    monkeypatch.setattr(environments.zoo, "names", lambda: ["med_cnn.digits"])
    code, _ = matrix_of(ended)
    assert code == 1


def test_an_interruption_keeps_what_was_done(matrix_of):
    def interrupted(job):
        if job.environment.name == "1 thread":
            raise KeyboardInterrupt
        return ended(job)

    code, _ = matrix_of(interrupted)
    assert code == 130
    code, trained = matrix_of(ended)
    assert code == 0 and FIRST.name not in trained and "1 thread" in trained


@pytest.mark.parametrize(
    "change",
    [{"bitspec": 0}, {"recipe_digest": ""}, {"facts": {}}, {"variables": {}}, {"kills": [{"traced_steps": 0}]}],
)
def test_a_result_made_otherwise_does_not_count(tmp_path, monkeypatch, change):
    matrix = Matrix(tmp_path / "m.json", {})
    matrix.put(job(), DIGESTS)
    assert Matrix(tmp_path / "m.json", {}).is_done(job())
    matrix.content["results"]["med_cnn.digits"][FIRST.name] |= change
    assert not matrix.is_done(job())


def test_entries_are_the_released_ones_or_any_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(environments.cpu_matrix, "facts", lambda environment: FACTS)
    entries = []

    def run_matrix(matrix, jobs, *_):
        entries[:] = dict.fromkeys(job.entry for job in jobs)
        assert all(job.recipe.is_file() for job in jobs)

    monkeypatch.setattr(environments, "run_matrix", run_matrix)
    environments.main(["--out", str(tmp_path / "m.json")])
    assert entries == environments.zoo.names()
    environments.main(["--out", str(tmp_path / "m.json"), "--entries", "med_resnet18.breastmnist", "med_cnn.digits"])
    assert entries == ["med_resnet18.breastmnist", "med_cnn.digits"]
    with pytest.raises(SystemExit):
        environments.main(["--entries", "nosuch"])


def with_command(monkeypatch, script, *arguments):
    command = lambda job, folder, data_dir: [sys.executable, "-c", script, str(folder), *arguments]  # noqa: E731 a stub
    monkeypatch.setattr(environments, "train_command", command)


def test_a_run_is_killed_twice_after_it_began_and_ends(monkeypatch):
    with_command(monkeypatch, TRAINING, json.dumps(DIGESTS))
    result = environments.run_job(job(RESUMED), None, 0.8, random.Random(1))
    assert {k: result[k] for k in COMPARED} == {k: DIGESTS[k] for k in COMPARED}
    first, second = (kill["traced_steps"] for kill in result["kills"])
    assert 0 < first < second < 40


def test_a_run_that_is_over_before_it_can_be_killed_is_no_result(monkeypatch):
    with_command(monkeypatch, "import sys")
    assert (
        "over before it could be killed 2 times"
        in environments.run_job(job(RESUMED), None, 9.0, random.Random(1))["problem"]
    )


def test_a_failing_training_says_why(monkeypatch):
    with_command(monkeypatch, "import sys; sys.exit('dettriton: no\\ndata')")
    result = environments.run_job(job(), None, 1.0, random.Random(1))
    assert result["problem"] == "dettriton: no data"


def test_the_command_trains_the_recipe_and_resumes(tmp_path):
    command = environments.train_command(job(), tmp_path, "somewhere")
    assert command[0] == sys.executable and {"train", "--resume", "--json"} <= {*command}
    assert command[-2:] == ["--data-dir", "somewhere"]


def test_variables_that_could_matter_are_unset_and_set(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    variables = Environment("mine", {"OMP_NUM_THREADS": "3"}).process_variables()
    assert "ATEN_CPU_CAPABILITY" not in variables and "TRITON_INTERPRET" not in variables
    assert variables["OMP_NUM_THREADS"] == "3" and variables["PATH"]


def test_every_environment_differs_from_the_first_where_it_says():
    every = (*ENVIRONMENTS, *OF_COMPILED_LOOPS)
    assert len({e.name for e in every}) == len(every)
    told = {e.name: f"{k}={v}" for e in every for k, v in e.variables.items() if e.name == f"{k}={v}"}
    assert len(told) == 7


def test_an_interpreter_without_dettriton_is_refused(tmp_path):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho No module named dettriton >&2\nexit 1\n")
    bare.chmod(0o755)
    with pytest.raises(EngineError, match=r"cannot run dettriton: No module named dettriton\. Install it"):
        cpu_matrix.of_interpreter(str(bare))
    with pytest.raises(EngineError, match="cannot run dettriton"):
        cpu_matrix.of_interpreter(str(tmp_path / "none"))


def test_output_is_that_of_a_process_of_the_environment():
    show = "import os; print(os.environ['MKL_CBWR'])"
    assert cpu_matrix.output(replace(FIRST, variables={"MKL_CBWR": "COMPATIBLE"}), ["-c", show]) == "COMPATIBLE\n"
    with pytest.raises(subprocess.CalledProcessError):
        cpu_matrix.output(FIRST, ["-c", "raise SystemExit(3)"])


def test_result_files_lie_beside_the_scripts_and_are_named_after_the_machine():
    path = reporting.result_path("matrix", FACTS)
    assert path.name == "matrix-a_cpu-torch2.0-triton3.0.json"
    assert path.parent == Path(reporting.__file__).parent / "results"
    gpu = FACTS | {"gpus": [{"name": "A GPU 9000"}]}
    assert reporting.result_path("check", gpu, "cuda").name == "check-A_GPU_9000-torch2.0-triton3.0.json"
