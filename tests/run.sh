#!/bin/sh
# tests/run.sh PROGRAM...: runs test programs, each of which ends with the line `N passed, N failed[, N skipped]`.
# Prints a line for each, the output of those that fail, and last the sum. RUN: a command to run them with.
# Each runs in an empty directory, where it may write.
set -u
passed=0 failed=0 skipped=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
log=$scratch/log
now() { date +%s.%N | sed 's/\.N$//'; } # whole seconds where date does not know %N

for program; do
    case $program in /*) path=$program ;; *) path=$PWD/$program ;; esac
    mkdir "$scratch/empty"
    start=$(now)
    (cd "$scratch/empty" && exec ${RUN:-} "$path") >"$log" 2>&1
    status=$?
    rm -rf "$scratch/empty"
    seconds=$(awk "BEGIN { printf \"%.2f\", $(now) - $start }")
    line=$(tail -n 1 "$log" | grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$')
    IFS=' ,' read -r p _ f _ s _ <<END
${line:-0 passed, 0 failed}
END
    if [ $status -eq 0 ] && [ "$f" -eq 0 ] && [ $((p + ${s:-0})) -gt 0 ]; then
        echo "ok      ${program##*/}: $line, $seconds s"
    else
        cat "$log"
        echo "FAILED  ${program##*/}: ${line:-no closing line}, exit status $status, $seconds s"
        [ "$f" -gt 0 ] || f=1 # a crash or a missing line is a failure of its own
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
done

if [ $skipped -gt 0 ]; then echo "$passed passed, $failed failed, $skipped skipped"
else echo "$passed passed, $failed failed"; fi
[ $failed -eq 0 ] && [ $((passed + skipped)) -gt 0 ]
