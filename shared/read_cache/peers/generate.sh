#!/bin/sh
# Writes cache_pb2.py and cache_pb2.pyi from cache.proto, with the grpcio-tools of the environment that PYTHON names.
# To be run after a change of cache.proto; tests/unit/shared/read_cache/test_generated_code.py fails until then.
#   $1: where to write, as the root of a tree; the root of this one, if it is not given.
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
out=${1:-$root}
cd "$root"
exec "$python" -m grpc_tools.protoc --proto_path=. --python_out="$out" --pyi_out="$out" shared/read_cache/peers/cache.proto
