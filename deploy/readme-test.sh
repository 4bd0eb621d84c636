#!/usr/bin/env bash
# Follows README.md from top to bottom, as a newcomer would: in a fresh clone of
# this tree, with a HOME of its own and nothing of this user's environment but
# the Go caches (what is downloaded and compiled, by content). deploy/readme is
# the program that reads the page, runs its blocks and compares what they print.
#
# Where the kernel allows it (Linux, root or user namespaces) all of it runs in
# namespaces of its own, where 10.0.0.1 and the other addresses of the page are
# this machine, so that no port can be taken and what is left running ends with
# them. Elsewhere the blocks that name such hosts are not run, and the page's
# ports must be free.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/common.sh

# inside: the second half, in the namespaces if there are any.
if [ "${1:-}" = inside ]; then
  if [ -n "${2:-}" ]; then
    ip link set lo up
    for host in 1 2 7 8 9; do ip address add "10.0.0.$host/32" dev lo; done
    for folder in /run /var/lib; do mount -t tmpfs none "$folder"; done
    mkdir /run/sluice
  fi
  exec "$README_WORK/readme" -page README.md ${2:+-hosts}
fi

need_go
for program in git redis-server redis-cli python3; do
  have "$program" || die "$program is needed; deploy/test.sh readme installs it"
done
work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT

# A checkout that belongs to another user is cloned all the same. What is not
# committed yet is part of what is tested.
mkdir "$work/home" "$work/tmp"
printf '[safe]\n\tdirectory = *\n' >"$work/home/.gitconfig"
git() { HOME=$work/home command git "$@"; }
git clone -q --no-hardlinks . "$work/sluice"
git ls-files -z -m -o --exclude-standard | while IFS= read -r -d '' file; do
  if [ -e "$file" ]; then
    mkdir -p "$work/sluice/$(dirname "$file")"
    cp -p "$file" "$work/sluice/$file"
  else
    rm -f "$work/sluice/$file"
  fi
done
go build -trimpath -buildvcs=false -o "$work/readme" ./deploy/readme

clean=(env -i "HOME=$work/home" "TMPDIR=$work/tmp" "PATH=$(dirname "$(command -v go)"):/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
  FAKETTY=1 # redis-cli prints as it does in a terminal
  "LANG=C.UTF-8" "README_WORK=$work" "GOMODCACHE=$(go env GOMODCACHE)" "GOCACHE=$(go env GOCACHE)" "GOPROXY=$(go env GOPROXY)" "GOFLAGS=$(go env GOFLAGS)")
namespaces=(unshare --net --mount --pid --fork --kill-child --mount-proc)
[ "$(id -u)" = 0 ] || namespaces=(unshare --user --map-root-user "${namespaces[@]:1}")
status=0
cd "$work/sluice"
if "${namespaces[@]}" ip link set lo up 2>/dev/null; then
  "${clean[@]}" "${namespaces[@]}" deploy/readme-test.sh inside hosts || status=$?
else
  say "readme: no namespaces here, so the blocks that name hosts of the reader's own are not run"
  for port in 6379 6380 6390 6401 6402 6403 6479 9380; do
    if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      die "port $port of 127.0.0.1 is taken: README.md uses it; end what listens there"
    fi
  done
  "${clean[@]}" deploy/readme-test.sh inside || status=$?
fi
exit $status
