#!/bin/sh
# Makes /opt/satomori of the folder `satomori` on the boot partition: edge.txt (the lock, with hashes), satomori-*.whl (the agent) and,
# where there is no internet, wheels/ (what edge.txt names). Whole or not at all; what stands already is left alone. Run as root.
set -eu

boot=${SATOMORI_BOOT:-/boot/firmware}/satomori
target=${SATOMORI_TARGET:-/opt/satomori}
say() { echo "satomori-install: $*" >&2; }

[ ! -e "$target/.installed" ] || exit 0
for needed in "$boot/edge.txt" "$boot"/satomori-*.whl; do
    [ -e "$needed" ] || { say "$needed is missing: copy it to the card's boot partition, as firmware_configs/README.md says"; exit 1; }
done
set -- "$boot"/satomori-*.whl
[ $# -eq 1 ] || { say "$boot holds $# wheels of satomori; leave one"; exit 1; }

# What pip can't bring: the module that makes a venv, and Debian's library for the pins. On a 32-bit system PyPI has no wheel of cffi,
# which cryptography needs: there it is built from its source, whose hash is in edge.txt too.
packages='python3-venv python3-lgpio'
how='--only-binary=:all:'
if [ "$(dpkg --print-architecture 2>/dev/null)" = armhf ]; then
    packages="$packages gcc libc6-dev libffi-dev python3-dev python3-setuptools"
    how="$how --no-binary=cffi --no-build-isolation" # so the setuptools of above builds it, and none from anywhere
fi
for package in ${SATOMORI_PACKAGES-$packages}; do
    dpkg -s "$package" >/dev/null 2>&1 && continue
    apt-get -q update || true
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$package"
done

# Only the hashes in edge.txt decide what is taken; what the system's own pip.conf says (piwheels) does not.
export PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1
if [ -d "$boot/wheels" ]; then
    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$boot/wheels"
fi

rm -rf "$target"
trap 'rm -rf "$target"' EXIT
trap 'exit 1' INT TERM
# The pins' and the camera's libraries are Debian's: python3-lgpio, python3-picamera2.
python3 -m venv --system-site-packages "$target"
# shellcheck disable=SC2086 # a list of options
"$target/bin/python" -m pip install --quiet $how --ignore-installed --require-hashes --requirement "$boot/edge.txt"
"$target/bin/python" -m pip install --quiet --no-deps "$1"
"$target/bin/satomori-edge" --help >/dev/null
sync
: >"$target/.installed"
trap - EXIT
say "installed ${1##*/}"
