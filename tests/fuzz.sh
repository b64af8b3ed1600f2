#!/bin/sh
# tests/fuzz.sh SECONDS FUZZER...: runs fuzzers, named KIND_NAME, one after another, each for so many seconds on the corpus
# tests/corpus/NAME and one of its own, which lies beside it and grows. Prints executions and edges reached. What is found
# is kept there, too, and the exit status is 1.
set -u
seconds=$1 status=0
shift
for fuzzer; do
    name=${fuzzer##*_} directory=${fuzzer%/*} most=400
    corpus=$directory/corpus/$name
    mkdir -p "$corpus"
    set -- "tests/corpus/$name"
    case $name in files) set -- "$@" tests/files && most=4096 ;; esac
    if "$fuzzer" -max_len=$most -rss_limit_mb=4096 -timeout=30 -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$directory/$name-" "$corpus" "$@" >"$fuzzer.log" 2>&1; then verdict=ok
    else
        verdict=FAILED status=1
        tail -n 40 "$fuzzer.log"
    fi
    awk -v verdict=$verdict -v name="${fuzzer##*/}" '
        /cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
        /number_of_executed_units/ { executions = $2 }
        END { printf "%-7s %-20s %d executions, %d edges\n", verdict, name, executions, edges }' "$fuzzer.log"
done
exit $status
