#!/bin/sh
# Writes the lock files: exact versions with hashes, for every platform and Python from 3.11 on, and no addresses.
# dev.lock is resolved first and pins the others, so a package has the same version in all of them.
# `sh requirements/lock.sh --upgrade` moves to the newest versions; without it, only what pyproject.toml forces changes.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}

compile() { # $1: name of the lock; the rest: more arguments for uv
    out=requirements/$1.lock
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        --output-file "$out" "$@"
}

compile dev pyproject.toml --extra embedded --extra aws --extra tracing --extra dev "$@"
# Versions alone, as constraints: every line that starts with "name==version".
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' requirements/dev.lock >"$pins"
rm -f requirements/embedded.lock requirements/runtime.lock requirements/container.lock requirements/load.lock
compile embedded pyproject.toml --extra embedded --constraint "$pins" --no-annotate
compile runtime pyproject.toml --constraint "$pins" --no-annotate
compile container pyproject.toml --extra aws --extra tracing --constraint "$pins" --no-annotate
# For the image of the load runs, which start no server and no service.
compile load requirements/load.in --constraint "$pins" --no-annotate

if grep -nE '(https?|file)://|^--|/tmp/|/home/' requirements/*.lock; then
    echo "requirements/lock.sh: a lock file holds an address or a path of this machine" >&2
    exit 1
fi
