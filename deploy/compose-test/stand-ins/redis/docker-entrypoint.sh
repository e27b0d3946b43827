#!/bin/sh
# Options without a command mean the server, as in the public images.
set -e
if [ "${1#-}" != "$1" ]; then set -- redis-server "$@"; fi
exec "$@"
