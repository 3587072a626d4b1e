#!/bin/bash
# Target models, retain models, the runs of a sweep and its table: four jobs, each after the one before.
#     slurm/chain.sh my_sweep.yaml [key=value ...]
# SBATCH_ARGS: more words for every sbatch, as "--partition=a100 --account=me". Prints the four job ids.
set -euo pipefail
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
read -ra MORE <<< "${SBATCH_ARGS:-}"
template=${TIF_SLURM:-$PWD/slurm}/sweep.sbatch
submit() { sbatch --parsable --kill-on-invalid-dep=yes "${MORE[@]}" "$@"; }   # a failed stage ends it

last=$(( $("$PYTHON" -m tif.sweep "$@" --count) - 1 ))
target=$(submit --job-name=tif-target "$template" "$@" --stage target)
retain=$(submit --job-name=tif-retain --dependency="afterok:$target" "$template" "$@" --stage retain)
runs=$(submit --dependency="afterok:$retain" --array="0-$last" "$template" "$@")
table=$(submit --job-name=tif-table --dependency="afterany:$runs" "$template" "$@" --table)
echo "$target $retain $runs $table"
