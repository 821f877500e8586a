#!/usr/bin/env bash
# The numeric tests under the kernels of other processors: torch and oneDNN are told to do without this one's
# vector instructions, with one thread and with two. Not part of make test: it takes an hour. Arguments go to
# pytest:
#
#   bash tests/other_kernels.sh                 # every test that says "assert_same"
#   bash tests/other_kernels.sh tests/test_scd.py -k cached
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
if [ $# -eq 0 ]; then
  mapfile -t files < <(grep -l assert_same tests/test_*.py)
  set -- "${files[@]}"
fi
failed=0
for threads in 1 2; do
  for kernels in "default SSE41" "avx2 AVX2"; do
    read -r aten onednn <<< "$kernels"
    echo "== ATEN_CPU_CAPABILITY=$aten ONEDNN_MAX_CPU_ISA=$onednn, $threads thread(s)"
    ATEN_CPU_CAPABILITY=$aten ONEDNN_MAX_CPU_ISA=$onednn FRAMELENS_TEST_THREADS=$threads \
      "$python" -m pytest -q -p no:cacheprovider --durations=0 "$@" || failed=1
  done
done
exit $failed
