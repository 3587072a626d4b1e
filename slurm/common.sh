# Shared by all templates, which read it from slurm/ in the folder that sbatch was called in. Set TIF_SLURM to read it
# from another folder.
#
# A job that is preempted (SIGTERM) or near its time limit (--signal=USR1@180: 180 seconds before) writes a checkpoint
# and stops. SLURM puts a preempted job back into the queue; `run` does so for a job that ran out of time. The job then
# continues from its checkpoint. A job that is killed without a signal continues from its last checkpoint.
# After 50 restarts `run` does not put a job back: a job whose start takes longer than its time limit would restart
# for ever.
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
PYTHON=${PYTHON:-$SLURM_SUBMIT_DIR/.venv/bin/python}   # of the environment that tif is installed in

# run MODULE WORDS...: run `python -m MODULE WORDS...` in every task of the job, and end the script with its exit code.
run() {
    local code=0
    srun --kill-on-bad-exit=1 "$PYTHON" -m "$@" || code=$?
    if [ "$code" -eq 138 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 50 ]; then   # 138 = 128 + SIGUSR1
        echo "time is up: job $SLURM_JOB_ID goes back to the queue"
        scontrol requeue "$SLURM_JOB_ID"
        sleep 60   # requeueing ends this script
    fi
    exit "$code"
}
