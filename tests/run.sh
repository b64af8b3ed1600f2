#!/bin/sh
# tests/run.sh PROGRAM...: runs test programs, as many at a time as there are processors, each of which ends with the line
# `N passed, N failed[, N skipped]`. Prints a line for each, the output of those that fail, and last the sum. RUN: a command
# to run them with, but not scripts. Each runs in an empty directory, where it may write.
set -u
export MALLOC_PERTURB_=1 # with glibc new memory holds huge numbers, so that reading it shows
now() { date +%s.%N | sed 's/\.N$//'; } # whole seconds where date does not know %N

if [ "${1:-}" = --one ]; then # --one SCRATCH NUMBER PROGRAM: output, exit status and time to SCRATCH/NUMBER.*
    at=$2/$3
    mkdir "$at"
    case $4 in *.sh) RUN= ;; esac
    start=$(now)
    (cd "$at" && exec ${RUN:-} "$4") >"$at.log" 2>&1
    echo $? >"$at.status"
    awk "BEGIN { printf \"%.2f\", $(now) - $start }" >"$at.seconds"
    exit 0
fi

passed=0 failed=0 skipped=0 number=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
for program; do
    case $program in /*) ;; *) program=$PWD/$program ;; esac
    number=$((number + 1))
    printf '%s "%s"\n' $number "$program"
done | xargs -n 2 -P "$(getconf _NPROCESSORS_ONLN || echo 1)" "$0" --one "$scratch"

number=0
for program; do
    number=$((number + 1)) log=$scratch/$number.log
    status=$(cat "$scratch/$number.status") seconds=$(cat "$scratch/$number.seconds")
    line=$(tail -n 1 "$log" | grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$')
    IFS=' ,' read -r p _ f _ s _ <<END
${line:-0 passed, 0 failed}
END
    if [ "$status" -eq 0 ] && [ "$f" -eq 0 ] && [ $((p + ${s:-0})) -gt 0 ]; then
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
