#!/bin/sh
# tests/inclusion.sh: what including rp.h does to a program, as far as compiler and linker see it. CC: the compiler.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
passed=0 failed=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
check() { # check STATUS TEXT...: counts a check, which holds if the status is 0
    if [ "$1" -eq 0 ]; then passed=$((passed + 1)) && return; fi
    failed=$((failed + 1))
    shift
    echo "FAILED $*"
}
compile() { ${CC:-cc} -I"$root" "$@"; }

# Of the macros that the file defines for itself none is left, behind the implementation or the interface alone, but its guard.
macros=$(sed -nE 's/^ *# *define +((RPI|rpi)_[A-Za-z0-9_]*).*/\1/p' "$root/rp.h" | sort -u | grep -vx RPI_IMPLEMENTED)
{ echo '#include "rp.h"'
  for macro in $macros; do printf '#ifdef %s\nleft "%s"\n#endif\n' "$macro" "$macro"; done; } >"$scratch/macros.c"
for variant in "" -DRP_IMPLEMENTATION "-DRP_IMPLEMENTATION -DRP_DOUBLE" "-DRP_IMPLEMENTATION -DRP_NO_SIMD" \
    "-DRP_IMPLEMENTATION -DRP_THREADS"; do
    preprocessed=$(compile $variant -E "$scratch/macros.c")
    check $? "the preprocessor with '$variant'"
    left=$(printf '%s\n' "$preprocessed" | sed -n 's/^left //p')
    [ -z "$left" ]
    check $? "macros are left with '$variant':" $left
done

printf '%d passed, %d failed\n' $passed $failed
[ $failed -eq 0 ]
