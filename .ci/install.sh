# For .ci/run and .ci/full, which source it: they have a directory "$work".

have() { command -v "$1" >/dev/null || [ -e "$1" ]; } # a command, or a file

# Reads lines of a command or file and the Debian packages that bring it; installs those of what is not here.
install_missing() {
    local wanted packages missing=()
    while read -r wanted packages; do
        have "$wanted" || missing+=($packages)
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing ${missing[*]}"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
        >"$work/apt" 2>&1 || { tail -n 5 "$work/apt"; echo "could not install all of: ${missing[*]}"; }
}
