#!/usr/bin/env bash
# Installs what the tests need and runs them. Steps, all by default:
#   lint      gofmt, go vet (also for macOS), golangci-lint
#   unit      go test -race ./..., among them tests against real redis-servers
#   exact     the tests whose figures the race detector would falsify: allocations,
#             memory, a crash at every point
#   rules     Prometheus's configuration and rules, by promtool
#   k8s       the manifests in deploy/k8s, in a module of their own
#   versions  the proxy and the relay with Redis 7.0 and 8.0 and Valkey 8.1 and 9,
#             where these can be fetched (deploy/servers.sh)
#   suite     Redis's own test suite, directly and through sluice, where its sources
#             can be fetched (deploy/redis-suite.sh); three to four minutes
#   fuzz      every fuzz target for FUZZTIME (default 5s)
#   readme    README.md followed from top to bottom in a clean environment
#   compose   docker-compose.yml end to end, where a Docker engine answers
# Usage: deploy/test.sh [lint|unit|exact|rules|k8s|versions|suite|fuzz|readme|compose]...
# Fails if a step fails; the last line says which. Needs no network if
# everything is already installed.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/common.sh

GOLANGCI_VERSION=2.15.0
FUZZTIME=${FUZZTIME:-5s}

# need_tools: what the tests call. The race detector needs a C compiler.
need_tools() {
  local missing=()
  have redis-server || missing+=(redis-server)
  have redis-cli && have redis-benchmark || missing+=(redis-tools)
  # A browser looks at the status page. Debian's brings no fonts.
  have chromium || have chromium-browser || have google-chrome || missing+=(chromium fonts-dejavu-core)
  have gcc || have clang || missing+=(gcc libc6-dev)
  # The module is looked for in the system's own Python too, since another
  # python3 may stand before it in PATH.
  python3 -c 'import redis' 2>/dev/null || /usr/bin/python3 -c 'import redis' 2>/dev/null ||
    missing+=(python3-redis)
  have prometheus || missing+=(prometheus)
  have tclsh || missing+=(tcl) # for the step suite
  # Client libraries whose programs TestClients runs.
  php -r 'exit(class_exists("Redis") ? 0 : 1);' 2>/dev/null || missing+=(php-cli php-redis)
  /usr/bin/ruby -e 'require "redis"' 2>/dev/null || missing+=(ruby-redis)
  [ -e /usr/include/hiredis/hiredis.h ] || missing+=(libhiredis-dev)
  # A partition is made with a network namespace and a firewall in it.
  have ip || missing+=(iproute2)
  have nft || missing+=(nftables)
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

# golangci prints the path of a golangci-lint of the pinned version. Building
# it takes minutes, so it is kept in the user's cache, by version.
golangci() {
  local cache bin
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/golangci-lint-$GOLANGCI_VERSION
  for bin in "$cache/golangci-lint" "$(go env GOPATH)/bin/golangci-lint" "$(command -v golangci-lint || true)"; do
    if [ -x "$bin" ] && "$bin" version 2>/dev/null | grep -q "version v\{0,1\}$GOLANGCI_VERSION "; then
      printf '%s\n' "$bin"
      return
    fi
  done
  say "building golangci-lint v$GOLANGCI_VERSION once, into $cache (some minutes)"
  mkdir -p "$cache"
  GOBIN=$cache go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$GOLANGCI_VERSION" >&2
  printf '%s\n' "$cache/golangci-lint"
}

lint() {
  local unformatted lint_bin
  unformatted=$(gofmt -l .) || return
  if [ -n "$unformatted" ]; then
    say "not gofmt'ed:"
    say "$unformatted"
    return 1
  fi
  go vet ./... || return
  GOOS=darwin go vet ./... || return # the kqueue side compiles and is vetted, though it cannot run here
  lint_bin=$(golangci) || return
  "$lint_bin" run ./...
}

# -count=1: results against real servers are not to come out of the cache. The
# tests stop, kill and delay real servers, two packages at a time; where up to
# three of them fail, those run once more by themselves, and the step says which
# passed only then. A data race, a panic or a leak is never tried again.
unit() {
  local out pkg tests status=0
  out=$(mktemp)
  go test -race -count=1 ./... 2>&1 | tee "$out" || status=1
  if [ $status = 1 ] && failed_tests "$out" >"$out.failed"; then
    status=0
    while read -r pkg tests; do
      say "unit: once more, alone: $pkg $tests"
      go test -race -count=1 -run "^($tests)\$" "$pkg" </dev/null || status=1
    done <"$out.failed"
    [ $status = 1 ] || say "unit: passed only alone: $(paste -sd' ' "$out.failed")"
  fi
  rm -f "$out" "$out.failed"
  return $status
}

# failed_tests OUTPUT prints "package Test|Test" for each package with failed
# tests; it fails where it is not as simple as that.
failed_tests() {
  ! grep -qE '^(WARNING: DATA RACE|panic: |fatal error: )|goleak|\[build failed\]|\[setup failed\]' "$1" || return 1
  awk '
    /^--- FAIL: / { names = names (names == "" ? "" : "|") $3; n++ }
    /^FAIL\t/ { if (names == "") bad = 1; print $2, names; names = "" }
    END { exit bad || n == 0 || n > 3 }
  ' "$1"
}

# exact: those tests check less, or are left out, with -race.
exact() {
  local out name status=0
  local tests=(TestNoAllocationPerCommand TestLargeValues TestSeveralLargeValuesAtOnce
    TestManySmallRepliesAreBounded TestCrashAtEveryPoint TestFault29HugeCommands)
  out=$(go test -count=1 -v -run "^($(paste -sd'|' <(printf '%s\n' "${tests[@]}")))\$" ./proxy ./syncer/store ./syncer/upstream 2>&1) || status=1
  grep -vE '^ *=== ' <<<"$out"
  for name in "${tests[@]}"; do
    grep -q "^--- PASS: $name " <<<"$out" || { say "exact: $name has not passed"; status=1; }
  done
  return $status
}

# rules: every alert fires and is silent again in rules_test.yml.
rules() {
  local dir=deploy/prometheus alert
  have promtool || install_packages prometheus || return
  promtool check config "$dir/prometheus.yml" || return
  promtool test rules "$dir/rules_test.yml" || return
  for alert in $(sed -n 's/^ *- alert: //p' "$dir/rules.yml"); do
    grep -q "alertname: $alert\$" "$dir/rules_test.yml" || { say "$dir/rules_test.yml does not test $alert"; return 1; }
  done
}

# k8s: a module of its own, so that Kubernetes' types are no dependency of sluice.
k8s() { (cd deploy/k8s/check && go vet ./... && go test -count=1 ./...); }

fuzz() {
  local list pkg target status=0
  # `go test -list` prints a package's targets, then "ok package time".
  list=$(go test -list '^Fuzz' ./...) || { say "$list"; return 1; }
  list=$(printf '%s\n' "$list" | awk '/^Fuzz/ { t[n++] = $1 } $1 == "ok" { for (i = 0; i < n; i++) print $2, t[i]; n = 0 }')
  if [ -z "$list" ]; then
    echo "fuzz: no fuzz targets"
    return
  fi
  while read -r pkg target; do
    echo "fuzz: $pkg $target for $FUZZTIME"
    fuzz_target "$pkg" "$target" || status=1
  done <<<"$list"
  return $status
}

# fuzz_target PACKAGE TARGET. Where the time is over and no input has failed, go
# before 1.27 at times reports its own deadline as the failure (go.dev/issue/75804):
# then, and only then, the target runs once more.
fuzz_target() {
  local out status=0
  out=$(fuzz_once "$@" | progress) || status=1
  if [ $status = 1 ] && only_deadline "$out"; then
    say "fuzz: no input has failed, it was go.dev/issue/75804: $2 once more"
    status=0
    out=$(fuzz_once "$@" | progress) || status=1
  fi
  printf '%s\n' "$out"
  return $status
}

# progress shows how far go is as it goes, and passes the rest on.
progress() { sed -u -e '/^fuzz: elapsed/{w /dev/stderr' -e 'd}'; }

# What is new is minimized by tries, not for the minute that is the default: it
# would take all the time of a slow target.
fuzz_once() { go test -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 100x "$1" </dev/null 2>&1; }

# only_deadline OUTPUT: the deadline is all that a failed target complains of.
only_deadline() {
  [ "$(sed -n '/^--- FAIL: /,/^FAIL$/p' <<<"$1" | sed '1d;$d')" = "    context deadline exceeded" ] &&
    ! grep -qE 'Failing input written|^panic: |^fatal error: |DATA RACE' <<<"$1"
}

# compose leaves with $SKIPPED where there is nothing to run it on.
SKIPPED=77
compose() {
  local why
  if ! have docker; then
    echo "compose: skipped, there is no docker command here"
    return $SKIPPED
  elif ! why=$(docker version --format '{{.Server.Version}}' 2>&1); then
    echo "compose: skipped, no Docker engine answers: $(printf '%s\n' "$why" | tail -n 1)"
    return $SKIPPED
  elif ! docker compose version >/dev/null 2>&1 && ! have docker-compose; then
    echo "compose: skipped, there is a Docker engine but no compose"
    return $SKIPPED
  else
    deploy/compose-test.sh
  fi
}

# versions leaves with $SKIPPED where the servers cannot be had.
versions() {
  local servers=${SLUICE_TEST_SERVERS:-}
  [ -n "$servers" ] || servers=$(deploy/servers.sh | paste -sd: -) || return
  SLUICE_TEST_SERVERS=$servers go test -count=1 ./resp/command ./rdbstream/... || return
  SLUICE_TEST_SERVERS=$servers go test -race -count=1 -run '^TestVersions$' ./syncer/... || return
  SLUICE_TEST_SERVERS=$servers go test -race -count=1 -run '^TestVersions$|^TestWait' ./proxy
}

# suite leaves with $SKIPPED where the sources cannot be had. Redis's tests look
# at times: a run that fails is tried once more, and says so.
suite() {
  local status=0
  deploy/redis-suite.sh || status=$?
  [ $status != 0 ] && [ $status != "$SKIPPED" ] || return $status
  say "suite: once more"
  deploy/redis-suite.sh
}

readme() { deploy/readme-test.sh; }

steps=("$@")
[ $# -gt 0 ] || steps=(lint unit exact rules k8s versions suite fuzz readme compose)
for step in "${steps[@]}"; do
  case $step in
    lint | unit | exact | rules | k8s | versions | suite | fuzz | readme | compose) ;;
    *) die "no such step: $step (there are lint, unit, exact, rules, k8s, versions, suite, fuzz, readme, compose)" ;;
  esac
done

need_go
case " ${steps[*]} " in
  *" unit "* | *" exact "* | *" versions "* | *" fuzz "* | *" readme "* | *" suite "*) need_tools ;;
esac
passed=() failed=() skipped=()
for step in "${steps[@]}"; do
  echo "=== $step"
  begin=$SECONDS status=0
  # Each step runs in a shell of its own: one that dies does not end the others.
  # As part of a || list it runs without set -e: the steps check what they call.
  ("$step") || status=$?
  case $status in
    0) verdict=ok passed+=("$step") ;;
    "$SKIPPED") verdict=skipped skipped+=("$step") ;;
    *) verdict=FAILED failed+=("$step") ;;
  esac
  echo "=== $step $verdict, $((SECONDS - begin)) s"
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "deploy/test.sh: failed: ${failed[*]}"
  exit 1
fi
echo "deploy/test.sh: ok: ${passed[*]:-nothing}${skipped[*]+, skipped: ${skipped[*]}}"
