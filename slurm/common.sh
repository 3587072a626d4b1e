# What all templates share. Read by them, from the folder that sbatch was called in (TIF_SLURM: another place).
#
# A job that is preempted (SIGTERM) or near its time limit (--signal=USR1@180: 180 seconds before) writes a checkpoint
# and stops; in the queue again, it goes on from there. SLURM itself requeues what it preempts, `run` what ran out of time.
# A job that is killed without a word goes on from its last checkpoint. After 50 restarts a job stays away: its start may
# take longer than its time limit, and then it never gets on.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
PYTHON=${PYTHON:-$SLURM_SUBMIT_DIR/.venv/bin/python}   # of the environment with tif

# run MODULE WORDS...: the command in every task of the job.
run() {
    local code=0
    srun --kill-on-bad-exit=1 "$PYTHON" -m "$@" || code=$?
    if [ "$code" -eq 138 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then   # 128 + SIGUSR1
        echo "time is up: job $SLURM_JOB_ID goes back to the queue"
        scontrol requeue "$SLURM_JOB_ID"
        sleep 60   # requeueing ends this script
    fi
    exit "$code"
}
