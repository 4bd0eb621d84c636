#!/usr/bin/env bash
# Builds sluice and starts the lab: one master, two replicas and sluice in
# front of them, all on 127.0.0.1, until Ctrl-C. Arguments go to `sluice lab`.
# Needs Go; installs redis-server by apt or brew where it is missing, without
# starting the service that comes with the package.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/common.sh

need_go
have redis-server || install_packages redis-server
have redis-server || die "redis-server is installed but not in PATH ($PATH)"
build_sluice
exec ./bin/sluice lab "$@"
