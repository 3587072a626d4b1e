#!/bin/bash
# Submit four jobs that run one after the other: a sweep's target models, its retain models, its
# runs (an array), its table. Prints the four job ids.
#     slurm/chain.sh my_sweep.yaml [key=value ...]
# SBATCH_ARGS: more words for every sbatch, as "--partition=a100 --account=me".
set -euo pipefail
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
read -ra MORE <<< "${SBATCH_ARGS:-}"
template=${TIF_SLURM:-$PWD/slurm}/sweep.sbatch
# --kill-on-invalid-dep: where a stage fails, the jobs that wait for it are cancelled.
submit() { sbatch --parsable --kill-on-invalid-dep=yes "${MORE[@]}" "$@"; }

last=$(( $("$PYTHON" -m tif.sweep "$@" --count) - 1 ))
target=$(submit --job-name=tif-target "$template" "$@" --stage target)
retain=$(submit --job-name=tif-retain --dependency="afterok:$target" "$template" "$@" --stage retain)
runs=$(submit --dependency="afterok:$retain" --array="0-$last" "$template" "$@")
table=$(submit --job-name=tif-table --dependency="afterany:$runs" "$template" "$@" --table)
echo "$target $retain $runs $table"
