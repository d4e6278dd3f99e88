#!/bin/sh
# Starts the Redis of the compose stack, which is Valkey; an image of Redis itself will do. Before that it drops a transaction that a
# loss of power tore apart, for the reasons in infrastructure/local/servers/append_only.py. Other damage of the file is left to the
# server.
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

# Who may do what: the list names users, and this adds their passwords, as digests. An account whose NAME_PASSWORD is not set has
# no user. NAME_PASSWORD_NEXT is valid beside it while it replaces it (docs/security.md).
digests() { for each in "$@"; do [ -z "$each" ] || printf '#%s ' "$(printf %s "$each" | sha256sum | cut -d' ' -f1)"; done; }

access="requirepass \"$REDISCLI_AUTH\""
list=${REDIS_USERS:-/etc/bidding/redis-users.acl}
if [ -f "$list" ]; then
    users=${REDIS_RUN:-/tmp}/redis-users.acl
    (umask 077 && sed "s/@default@/$(digests "$REDISCLI_AUTH")/" "$list" > "$users")
    for account in gateway broadcaster archiver operator; do
        name=$(echo "$account" | tr a-z A-Z)
        eval "passwords=\$(digests \"\${${name}_PASSWORD:-}\" \"\${${name}_PASSWORD_NEXT:-}\")"
        if [ -n "$passwords" ]; then sed -i "s/@$account@/$passwords/" "$users"; else sed -i "/@$account@/d" "$users"; fi
    done
    access="aclfile $users"
fi

exec "$engine-server" - <<CONF
include ${REDIS_CONFIG:-/etc/bidding/redis.conf}
maxmemory $REDIS_MAXMEMORY
$access
$cluster
CONF
