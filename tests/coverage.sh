#!/bin/sh
# tests/coverage.sh DIRECTORY: how much of rp.h the programs in DIRECTORY/tests have run, by clang's instrumentation, whose
# files lie in DIRECTORY/profiles. A line or branch counts once, whatever programs and instruction sets it was compiled for;
# branches behind a macro count where it is used. Last the functions that no program entered.
set -eu
directory=$1
llvm-profdata merge -sparse "$directory"/profiles/*.profraw -o "$directory/profile"
set --
for program in "$directory"/tests/*; do
    case $program in *.o) continue ;; esac
    set -- "$@" ${1:+-object} "$program"
done
rp=$PWD/rp.h
llvm-cov export --format=lcov -instr-profile "$directory/profile" "$@" "$rp" >"$directory/lines"
llvm-cov show --show-branches=count --show-instantiations=false -instr-profile "$directory/profile" "$@" "$rp" >"$directory/branches"

awk -F '[:,]' '
    $1 == "DA" { all++; if ($3 > 0) hit++ }
    END { printf "lines     %.2f%% (%d of %d)\n", 100 * hit / all, hit, all }' "$directory/lines"
awk -F '[][():, ]+' '
    /Branch \([0-9]/ && !/Folded/ { # | Branch (LINE:COLUMN): [True: COUNT, False: COUNT]
        for (i = 1; $i != "Branch"; i++);
        at = $(i + 1) ":" $(i + 2)
        place[at]
        if ($(i + 4) != "0") true[at]
        if ($(i + 6) != "0") false[at]
    }
    END {
        for (at in place) { all += 2; hit += (at in true) + (at in false) }
        printf "branches  %.2f%% (%d of %d)\n", 100 * hit / all, hit, all
    }' "$directory/branches"
awk -F '[:,]' '
    $1 == "FNDA" { name = $NF; sub(/^rpi_(portable|avx2|avx512|neon)_/, "rpi_", name); count[name] += $2 }
    END { for (name in count) if (!count[name]) print "never run: " name }' "$directory/lines" | sort
