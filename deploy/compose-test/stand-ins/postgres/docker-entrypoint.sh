#!/bin/bash
# The part of the public image's entry point that docker-compose.yml relies on: make the cluster on the
# first start, with POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, as the user the container runs as.
set -euo pipefail

if [ "${1#-}" != "$1" ]; then set -- postgres "$@"; fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?must be given}"
    owner="${POSTGRES_USER:-postgres}"
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    initdb --username="$owner" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        --encoding=UTF8 --auth-local=trust --auth-host=scram-sha-256
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    # Socket only, as in the public image: nobody may mistake this server for the finished one.
    pg_ctl --wait --pgdata="$PGDATA" --options="-c listen_addresses=''" start
    if [ "${POSTGRES_DB:-$owner}" != postgres ]; then
        createdb --username="$owner" --maintenance-db=postgres "${POSTGRES_DB:-$owner}"
    fi
    pg_ctl --wait --pgdata="$PGDATA" --mode=fast stop
fi

exec "$@"
