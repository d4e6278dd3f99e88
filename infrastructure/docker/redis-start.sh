#!/bin/sh
# Starts the Redis of the compose stack, which is Valkey; an image of Redis itself will do. Before that, a transaction that a
# loss of power tore apart goes, for the reasons in infrastructure/local/servers/append_only.py; whatever else may be wrong with
# the file is left to the server.
set -eu
data=${REDIS_DATA:-/data}
engine=valkey
command -v valkey-server >/dev/null || engine=redis

starts_with_multi() { [ "$(head -c 15)" = "$(printf '*1\r\n$5\r\nMULTI\r\n')" ]; }

file=$(find "$data/appendonlydir" -name '*.incr.aof' 2>/dev/null | sort -t. -n -k3 | tail -n 1)
if [ -n "$file" ]; then
    sound=$("$engine-check-aof" "$file" 2>/dev/null | sed -n 's/.*ok_up_to=\([0-9]*\).*/\1/p' | tail -n 1)
    if [ -n "$sound" ] && tail -c "+$((sound + 1))" "$file" | starts_with_multi &&
        ! tail -c "+$((sound + 1))" "$file" | tr -d '\r' | grep -qx EXEC; then
        echo "redis-start: a torn transaction at byte $sound of $file was never answered, and goes"
        truncate -s "$sound" "$file"
    fi
fi

# A node of a cluster (docker-compose.cluster.yml) tells clients its name; its address is another one after each start.
cluster=
if [ -n "${REDIS_CLUSTER_NAME:-}" ]; then
    cluster="cluster-enabled yes
cluster-config-file nodes.conf
cluster-node-timeout 5000
cluster-require-full-coverage no
cluster-announce-hostname $REDIS_CLUSTER_NAME
cluster-preferred-endpoint-type hostname
masterauth \"$REDISCLI_AUTH\""
fi

exec "$engine-server" - <<CONF
include ${REDIS_CONFIG:-/etc/bidding/redis.conf}
maxmemory $REDIS_MAXMEMORY
requirepass "$REDISCLI_AUTH"
$cluster
CONF
