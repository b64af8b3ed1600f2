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

# Of the macros that the file defines for itself, none but its guard is left behind it.
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

# Files of one program agree on RP_DOUBLE, or it does not link, and the linker names what differs.
cat >"$scratch/main.c" <<'END'
#define RP_IMPLEMENTATION
#define RP_NO_SIMD
#include "rp.h"
int other(void);
int main(void) { return other(); }
END
cat >"$scratch/other.c" <<'END'
#include "rp.h"
int other(void);
int other(void) { return rp_status_text(RP_OK) == NULL; }
END
printf '#define RP_STATIC\n#define RP_IMPLEMENTATION\n#define RP_NO_SIMD\n' | cat - "$scratch/other.c" >"$scratch/static.c"
for file in main other; do
    compile -c "$scratch/$file.c" -o "$scratch/$file.float.o"
    check $? "compiling $file.c"
    compile -DRP_DOUBLE -c "$scratch/$file.c" -o "$scratch/$file.double.o"
    check $? "compiling $file.c with RP_DOUBLE"
done
compile -DRP_DOUBLE -c "$scratch/static.c" -o "$scratch/static.double.o"
check $? "compiling static.c"
link() { ${CC:-cc} "$scratch/main.$1.o" "$scratch/$2.o" -o "$scratch/program" -lm 2>&1; }
for real in float double; do
    link $real other.$real && link $real static.double
    check $? "linking main.c in $real"
done
if echo __GNUC__ | compile -E - | grep -q '^__GNUC__'; then
    echo "main.c and other.c of different precision: skipped, this is not GNU C"
else
    for pair in "float other.double" "double other.float"; do
        link $pair | grep -q rp_reals_are
        check $? "main.c in ${pair% *} and ${pair#* } link"
    done
fi

printf '%d passed, %d failed\n' $passed $failed
[ $failed -eq 0 ]
