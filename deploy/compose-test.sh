#!/usr/bin/env bash
# Runs docker-compose.yml end to end, on free ports and under a project name of
# its own: writes and reads through sluice, sees the replicas serve the reads,
# asks Prometheus for their lag, kills a replica under reads and brings it
# back. One line per check; everything it made is removed again.
#
# An image that is already on this machine is used as it is. Where one is
# missing, and on Linux, a stand-in is made of this machine's own programs
# under the real name, so that no registry is needed and the real Dockerfile is
# built unchanged. SLUICE_TEST_PULL=1 has them pulled instead.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/common.sh

project=sluice-test-$$
work=$(mktemp -d)
passed=0
made=() # stand-in images

export SLUICE_IMAGE=$project:latest SLUICE_VERSION=compose-test
export SLUICE_PORT=0 SLUICE_ADMIN_PORT=0 PROMETHEUS_PORT=0 # the engine picks free ones
# The classic builder: it is in every engine, and takes images from the engine
# without asking a registry whether they are current.
export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0

# compose ARGUMENTS...: docker compose (v2) or docker-compose (v1).
if docker compose version >/dev/null 2>&1; then
  compose() { docker compose -p "$project" "$@"; }
else
  compose() { docker-compose -p "$project" "$@"; }
fi

check() { passed=$((passed + 1)); echo "ok   $*"; }
fail() { echo "FAIL $*"; exit 1; }

# --- stand-in images ---------------------------------------------------------

# put ROOT PROGRAM [PATH]: copies a program (to PATH, by default where it is)
# with the libraries that it is linked to.
put() {
  local root=$1 program=$2 path=${3:-$2} lib
  mkdir -p "$root$(dirname "$path")"
  cp -L "$program" "$root$path"
  for lib in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$lib")"
    [ -e "$root$lib" ] || cp -L "$lib" "$root$lib"
  done
}

# import ROOT IMAGE CHANGE...: makes an image of a folder, all root's but for
# what the change says.
import() {
  local root=$1 image=$2 change flags=()
  shift 2
  mkdir -p "$root/tmp" "$root/etc"
  chmod 1777 "$root/tmp"
  printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
  for change in "$@"; do flags+=(--change "$change"); done
  tar -C "$root" --owner=0 --group=0 -c . | docker import "${flags[@]}" - "$image" >/dev/null
  made+=("$image")
  rm -rf "$root"
}

redis_image() {
  if ! have redis-server || ! have redis-cli; then
    install_packages redis-server
  fi
  put "$work/redis" "$(command -v redis-server)" /usr/local/bin/redis-server
  put "$work/redis" "$(command -v redis-cli)" /usr/local/bin/redis-cli
  put "$work/redis" /bin/sh
  mkdir "$work/redis/data"
  import "$work/redis" "$1" 'ENV PATH=/usr/local/bin:/bin' 'WORKDIR /data' 'EXPOSE 6379' 'CMD ["redis-server"]'
  say "$1: stand-in with $(redis-server --version)"
}

prometheus_image() {
  local program
  program=$(command -v prometheus || true)
  if [ -z "$program" ]; then # the package would bring a service: only its program is wanted
    have apt-get || die "prometheus is not installed, and its image not here"
    mkdir "$work/deb"
    (cd "$work/deb" && { apt-get download -q prometheus || { as_root apt-get update -q && apt-get download -q prometheus; }; } >&2)
    dpkg-deb -x "$work"/deb/prometheus_*.deb "$work/deb"
    program=$work/deb/usr/bin/prometheus
  fi
  put "$work/prometheus" "$program" /bin/prometheus
  mkdir -m 1777 "$work/prometheus/prometheus"
  import "$work/prometheus" "$1" 'USER 65534' 'WORKDIR /prometheus' 'EXPOSE 9090' \
    'ENTRYPOINT ["/bin/prometheus"]' \
    'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]'
  say "$1: stand-in with $("$program" --version 2>&1 | head -n 1)"
}

# golang_image: this machine's Go, the modules that go.mod asks for as a module
# proxy made of files, and a build cache, as compiling the dependencies takes a
# minute or two. The cache is filled here, with the Dockerfile's flags (with
# -trimpath it does not matter where the source lies), and kept for next time.
golang_image() {
  local root=$work/golang goroot modules cache
  need_go
  goroot=$(go env GOROOT)
  modules=$(go env GOMODCACHE)/cache/download
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/compose-go-build
  mkdir -p "$root/usr/local/go" "$root/etc/ssl/certs" "$root/go" "$cache"
  tar -C "$goroot" --exclude=testdata --exclude='*_test.go' --exclude=src/cmd -c VERSION go.env bin src pkg |
    tar -C "$root/usr/local/go" -x
  go mod download
  GOMODCACHE=$work/mod GOFLAGS=-modcacherw GONOSUMDB='*' GOPROXY=file://$modules go mod download
  mv "$work/mod/cache/download" "$root/modules"
  GOCACHE=$cache CGO_ENABLED=0 go build -trimpath -buildvcs=false -o /dev/null ./cmd/sluice
  cp -R "$cache" "$root/go-build"
  if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  fi
  touch "$root/etc/ssl/certs/ca-certificates.crt"
  put "$root" /bin/sh
  import "$root" "$1" 'ENV PATH=/usr/local/go/bin:/bin' 'ENV GOPATH=/go' 'ENV GOCACHE=/go-build' \
    'ENV GOTOOLCHAIN=local' 'ENV GOPROXY=file:///modules' 'ENV GONOSUMDB=*' 'WORKDIR /go'
  say "$1: stand-in with $(go version)"
}

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

stand_ins() {
  local image
  if [ -n "${SLUICE_TEST_PULL:-}" ] || [ "$(uname -s)" != Linux ]; then
    return # compose pulls what is missing
  fi
  # Those named outright: neither scratch nor ${SLUICE_IMAGE}.
  # shellcheck disable=SC2013 # names of images have no spaces
  for image in $(grep -hoE '^(FROM| +image:) +[a-z/]+:[^ ]+' deploy/Dockerfile docker-compose.yml | awk '{ print $2 }' | sort -u); do
    if have_image "$image"; then
      say "$image: the one on this machine"
      continue
    fi
    case $image in
      redis:*) redis_image "$image" ;;
      prom/prometheus:*) prometheus_image "$image" ;;
      golang:*) golang_image "$image" ;;
      grafana/grafana:*) ;; # of a profile that is not tested here: TestMonitoring asks what its panels ask
      *) die "no stand-in is known for the image $image" ;;
    esac
  done
}

# --- clean-up ----------------------------------------------------------------

# The classic builder leaves the build stage behind as unnamed images. Ours are
# those that begin with the layer of the stand-in that they were built on.
remove_stand_ins() {
  local image layer id
  for image in "${made[@]}"; do
    layer=$(docker image inspect -f '{{index .RootFS.Layers 0}}' "$image")
    for id in $(docker images -aq --no-trunc --filter "since=$image"); do
      if [ "$(docker image inspect -f '{{index .RootFS.Layers 0}}' "$id" 2>/dev/null)" = "$layer" ]; then
        docker image rm -f "$id" >/dev/null 2>&1 || true # its parents go with it
      fi
    done
    docker image rm -f "$image" >/dev/null || true
  done
}

cleanup() {
  local status=$?
  trap '' INT TERM
  set +e
  if [ $status != 0 ]; then
    say "--- the end of the containers' logs"
    compose logs --no-color --tail=15 >&2
  fi
  [ -z "${client:-}" ] || kill "$client" 2>/dev/null
  compose down -v --remove-orphans >"$work/down.log" 2>&1 || cat "$work/down.log" >&2
  docker image rm -f "$SLUICE_IMAGE" >/dev/null 2>&1
  [ ${#made[@]} = 0 ] || remove_stand_ins
  chmod -R u+w "$work" && rm -rf "$work"
  exit $status
}

# --- talking to the containers -----------------------------------------------

# port SERVICE PORT: where 127.0.0.1 has it.
port() { compose port "$1" "$2" | sed 's/.*://'; }

# container SERVICE: its id, running or not.
container() { docker ps -aq --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }

# calls SERVICE COMMAND: how often that redis-server was asked for it.
calls() {
  docker exec "$(container "$1")" redis-cli info commandstats |
    sed -n "s/^cmdstat_$2:calls=\([0-9]*\),.*/\1/p" | grep . || echo 0
}

# connect: opens a client connection through sluice as file descriptor 3.
connect() { exec 3<>"/dev/tcp/127.0.0.1/$sluice_port"; }

# redis WORD...: one command on that connection; leaves the answer in $reply:
# a bulk string's text, else the line as it is.
redis() {
  printf '%s\r\n' "$*" >&3
  IFS= read -r -t 10 reply <&3 || { reply="(no answer within 10 s)"; return 1; }
  reply=${reply%$'\r'}
  case $reply in
    '$-1') ;;
    '$'*) IFS= read -r -t 10 reply <&3 || return 1; reply=${reply%$'\r'} ;;
  esac
}

# http PORT PATH: the body.
http() {
  local line
  exec 4<>"/dev/tcp/127.0.0.1/$1" || return
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&4
  IFS= read -r -t 10 line <&4 || return
  case $line in *' 200 '*) ;; *) return 1 ;; esac
  while IFS= read -r -t 10 line <&4 && [ "${line%$'\r'}" != "" ]; do :; done
  cat <&4
  exec 4>&-
}

# promql QUERY: the values of its result, one a line.
promql() {
  http "$prometheus_port" "/api/v1/query?query=$1" | tr '{' '\n' |
    sed -n 's/.*"value":\[[^,]*,"\([^"]*\)"\].*/\1/p'
}

# until_true SECONDS WHAT COMMAND...: asks until it says yes, and fails the test
# if it does not in time. There is nothing to wait on but the answer.
until_true() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" 2>/dev/null; do
    [ $SECONDS -lt $deadline ] || fail "$what"
    sleep 0.2
  done
}

# --- the checks --------------------------------------------------------------

answers() { connect && redis SET hello ahri && [ "$reply" = +OK ]; }
reads_back() { redis GET hello && [ "$reply" = ahri ]; }
nodes_up() { [ "$(promql 'count(sluice_node_up%3D%3D1)')" = "$1" ]; }
lag_known() { [ "$(promql "sluice_replica_lag_$1" | grep -c '^[0-9]')" = 2 ]; }
read_by() { redis GET hello && [ "$(calls "$1" get)" -gt "$2" ]; }

check_reads() {
  local i before1 before2 before_master reads=300
  before1=$(calls replica-1 get)
  before2=$(calls replica-2 get)
  before_master=$(calls master get)
  for ((i = 0; i < reads; i++)); do
    reads_back || fail "read $i of $reads: $reply"
  done
  local by1=$(($(calls replica-1 get) - before1)) by2=$(($(calls replica-2 get) - before2))
  local by_master=$(($(calls master get) - before_master))
  local who="$reads reads: replica-1 served $by1, replica-2 $by2, the master $by_master"
  if [ $((by1 + by2 + by_master)) != $reads ] || [ $by1 = 0 ] || [ $by2 = 0 ] || [ $((by_master * 10)) -gt $reads ]; then
    fail "$who"
  fi
  check "$who"
}

# reading: a client of its own, in the background, that reads until told to
# stop. It leaves a byte in a file for every right answer, and the first wrong
# one in another.
reading() {
  local n=0
  connect
  until [ -e "$work/stop" ] || [ $n = 200000 ]; do
    reads_back || { echo "read $n: $reply" >"$work/wrong"; break; }
    n=$((n + 1))
    printf . >>"$work/reads"
  done
}

reads_done() { wc -c <"$work/reads"; }
reads_reached() { [ -e "$work/wrong" ] || [ "$(reads_done)" -ge "$1" ]; }

check_kill() {
  local before after
  : >"$work/reads"
  reading &
  client=$!
  until_true 20 "no reads before the replica is killed" reads_reached 200
  before=$(reads_done)
  docker kill "$(container replica-1)" >/dev/null
  after=$(reads_done)
  until_true 30 "no reads after the replica was killed" reads_reached $((after + 1000))
  touch "$work/stop"
  wait "$client" || true
  client=""
  [ ! -e "$work/wrong" ] || fail "replica-1 killed under reads: $(cat "$work/wrong")"
  check "replica-1 killed after $before reads: $(($(reads_done) - before)) more without an error"
}

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
begin=$SECONDS
docker version >/dev/null || die "no Docker engine answers"
stand_ins
ready=$((SECONDS - begin))
compose build sluice >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log" >&2; fail "build deploy/Dockerfile"; }
check "deploy/Dockerfile builds in $((SECONDS - begin - ready)) s (the stand-ins took $ready s): $(docker image inspect -f '{{.Size}}' "$SLUICE_IMAGE") bytes, user $(docker image inspect -f '{{.Config.User}}' "$SLUICE_IMAGE"), $(docker run --rm "$SLUICE_IMAGE" version)"
compose up -d >"$work/up.log" 2>&1 || { tail -n 40 "$work/up.log" >&2; fail "compose up"; }
sluice_port=$(port sluice 6380)
prometheus_port=$(port prometheus 9090)
check "all services are started after $((SECONDS - begin)) s"

until_true 60 "SET through sluice: ${reply:-no connection}" answers
check "SET hello ahri on port $sluice_port: +OK"
until_true 30 "Prometheus does not see four nodes up" nodes_up 4
check "Prometheus sees sluice_node_up of four nodes: master, replicas, relay"
http "$prometheus_port" /api/v1/rules | grep -q SluiceMasterLost || fail "Prometheus has not loaded the rules"
check "Prometheus has loaded the rules"
until_true 10 "GET hello through sluice" reads_back
check_reads
[ "$(calls master set)" = "$(calls replica-1 set)" ] || fail "the master has $(calls master set) SETs, replica-1 $(calls replica-1 set)"
check "the master served the writes and replicated them ($(calls master set))"
for unit in bytes seconds; do
  until_true 30 "Prometheus has no sluice_replica_lag_$unit of two replicas" lag_known $unit
  check "Prometheus has sluice_replica_lag_$unit of two replicas: $(promql sluice_replica_lag_$unit | tr '\n' ' ')"
done
check_kill
until_true 30 "Prometheus still sees four nodes up" nodes_up 3
check "Prometheus sees three nodes up"
connect
docker start "$(container replica-1)" >/dev/null
until_true 60 "replica-1 is back, but Prometheus does not see it" nodes_up 4
until_true 30 "replica-1 is back, but serves no reads" read_by replica-1 "$(calls replica-1 get)"
check "replica-1 started again: it is found and serves reads"
echo "compose-test: $passed checks passed in $((SECONDS - begin)) s"
