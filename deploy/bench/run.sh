#!/usr/bin/env bash
# Compares sluice with direct Redis, HAProxy, twemproxy and a forwarder that does
# nothing else on this machine, and prints a table (README.md beside this file
# says how to read it). Installs what is missing, builds sluice and the benchmark,
# and hands all arguments to the latter: -quick, -rounds, -only, -contestants, ...;
# -help lists them.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/common.sh

[ "$(uname -s)" = Linux ] || die "CPU times are read from /proc: the benchmark needs Linux"
need_go
missing=()
have redis-server || missing+=(redis-server)
have redis-benchmark || missing+=(redis-tools)
have haproxy || [ -x /usr/sbin/haproxy ] || missing+=(haproxy)
have nutcracker || [ -x /usr/sbin/nutcracker ] || missing+=(nutcracker)
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
PATH=$PATH:/usr/sbin # where Debian puts the two, and not in every user's PATH

build_sluice
go build -trimpath -buildvcs=false -o bin/ ./deploy/bench ./deploy/bench/bare
exec bin/bench "$@"
