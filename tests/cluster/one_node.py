"""A real Slurm of one node, for the length of a test: in a folder of its own, without systemd.

It has the partitions `main` and `high`, whose jobs preempt those of `main`: they are told by a signal and
have ten seconds. There is no accounting; a stand-in `sacct` answers submitit from the controller instead.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = "slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge"
SACCT = """
import re, subprocess, sys
print("JobID|State|NodeList")
for job in [value for flag, value in zip(sys.argv, sys.argv[1:]) if flag == "-j"]:
    told = subprocess.run(["scontrol", "-o", "show", "job", job], capture_output=True, text=True).stdout
    for line in told.splitlines():
        found = dict(re.findall(r"(\\w+)=(\\S*)", line))
        array = found.get("ArrayJobId")
        name = f"{array}_{found['ArrayTaskId']}" if array else found["JobId"]
        print(f"{name}|{found['JobState']}|{found.get('NodeList', '')}")
"""


def why_not() -> str:
    """Why Slurm can't be had here, empty if it can."""
    if os.geteuid() != 0:
        return "Slurm's daemons are started by root alone"
    if not all(shutil.which(program) for program in ("slurmctld", "slurmd", "sbatch", "munged")):
        return f"no Slurm on this machine (Debian: apt-get install {PACKAGES})"
    return ""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run Slurm in `folder`; gives the environment of its clients."""
    host = socket.gethostname().split(".")[0]
    conf, programs = folder / "slurm.conf", folder / "bin"
    programs.mkdir(parents=True)
    (folder / "spool").mkdir()
    (folder / "state").mkdir()
    conf.write_text(_conf(folder, host))
    sacct = programs / "sacct"
    sacct.write_text(f"#!{sys.executable}{SACCT}")
    sacct.chmod(0o755)
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": f"{programs}:{os.environ['PATH']}"}
    pids = [folder / f"{name}.pid" for name in ("slurmd", "slurmctld")]
    try:
        if not _alive(Path("/run/munge/munged.pid")):
            pids.append(_start_munge(folder))
        for command in (["slurmctld", "-f", str(conf)], ["slurmd", "-f", str(conf), "-N", host]):
            subprocess.run(command, env=environment, check=True, capture_output=True)
        wait_for(lambda: "idle" in _said(environment, "sinfo", "-h", "-o", "%t"), 30, "an idle node")
        yield environment
    finally:
        _said(environment, "scancel", "--signal=KILL", "--full", "--user=root")
        _said(environment, "scancel", "--user=root")
        wait_for(lambda: not _said(environment, "squeue", "-h"), 30, "the end of all jobs")
        for pid in pids:
            _stop(pid)


def process_of(environment: dict[str, str], job: str) -> int:
    """The process that srun started for a job of one task."""
    rows = [row.split() for row in _said(environment, "scontrol", "listpids", job).splitlines()]
    (found,) = (int(row[0]) for row in rows if row[2:4] == ["0", "0"])
    return found


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until `condition()` is true.

    Raises:
        TimeoutError: it isn't within `seconds`.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.2)


def _conf(folder: Path, host: str) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=300
JobRequeue=1
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES PriorityTier=1 GraceTime=10 MaxTime=60 State=UP
PartitionName=high Nodes={host} PriorityTier=10 MaxTime=60 State=UP
"""


def _start_munge(folder: Path) -> Path:
    munge = pwd.getpwnam("munge")
    run = Path("/run/munge")
    run.mkdir(exist_ok=True)
    os.chown(run, munge.pw_uid, munge.pw_gid)
    subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True, capture_output=True)
    return run / "munged.pid"


def _said(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def _alive(pid_file: Path) -> bool:
    return pid_file.exists() and Path(f"/proc/{pid_file.read_text().strip()}").exists()


def _stop(pid_file: Path) -> None:
    if _alive(pid_file):
        process = Path(f"/proc/{pid_file.read_text().strip()}")
        os.kill(int(process.name), signal.SIGTERM)
        wait_for(lambda: not process.exists(), 15, f"the end of {pid_file.stem}")
