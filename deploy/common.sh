# shellcheck shell=bash
# Functions that lab.sh, test.sh, compose-test.sh and bench/run.sh share.
# Sourced by bash (3.2 and later, so that macOS' own will do), never run.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: runs it as root, by sudo where we are not root ourselves.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "must be root, or have sudo, to run: $*"
  fi
}

# need_go: stops unless there is a Go that can build this module. A Go that is
# allowed to (GOTOOLCHAIN=auto, its default) fetches the version it needs.
need_go() {
  local want got
  want=$(awk '$1 == "go" { print $2; exit }' go.mod)
  if ! have go && [ -x /usr/local/go/bin/go ]; then
    PATH=$PATH:/usr/local/go/bin
  fi
  have go || die "Go is not installed; sluice needs Go $want or later: https://go.dev/doc/install"
  got=$(go env GOVERSION) || die "'go env' failed; sluice needs Go $want or later"
  got=${got#go}
  if [ "$(printf '%s\n%s\n' "$want" "${got%%[ -]*}" | sort -V | head -n 1)" != "$want" ]; then
    die "this is Go $got; sluice needs Go $want or later: https://go.dev/doc/install"
  fi
}

# version: what the binary will call itself.
version() { git describe --tags --always --dirty 2>/dev/null || echo dev; }

# build_sluice: builds ./bin/sluice. VCS stamping is off because the version is
# given, and because it fails in a checkout that belongs to another user.
build_sluice() {
  say "building sluice (the first time takes a minute)"
  CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=$(version)" -o bin/sluice ./cmd/sluice
}

# install_packages NAME...: installs packages by their Debian names; Homebrew
# gets the names it knows them by. Packages whose service would start at once
# (redis-server would take port 6379) are installed without: we need the
# programs, and nobody asked for a server that also starts with the machine.
install_packages() {
  if have apt-get; then
    apt_install "$@"
  elif have brew; then
    brew_install "$@"
  else
    die "no apt-get and no brew here; please install with your package manager: $*"
  fi
}

brew_install() {
  local pkg list=()
  for pkg in "$@"; do
    case $pkg in
      redis-server | redis-tools) pkg=redis ;; # brew starts no service by itself
      nutcracker) pkg=twemproxy ;;
      chromium) say "skipping chromium: tests of the status page are skipped without it; 'brew install --cask chromium'"; continue ;;
      fonts-dejavu-core) continue ;; # macOS has fonts
      python3-redis) say "skipping python3-redis: 'pip install redis' where you want it"; continue ;;
      php-cli) pkg=php ;;
      php-redis | ruby-redis) say "skipping $pkg: install it with pecl or gem where you want it"; continue ;;
      libhiredis-dev) pkg=hiredis ;;
      tcl) pkg=tcl-tk ;;
    esac
    list+=("$pkg")
  done
  [ ${#list[@]} = 0 ] || brew install "${list[@]}"
}

# A subshell, so that its trap leaves the caller's alone.
apt_install() (
  policy=/usr/sbin/policy-rc.d status=0
  say "installing: $*"
  # Debian asks policy-rc.d before a package's service is started. Where the
  # machine has none (most do not), put one there that says no while we
  # install, and take it away again; one that is there knows better than we do.
  if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  apt_get "$@" || status=$?
  [ $status = 0 ] || die "apt-get could not install: $*"
  # systemd would still start it at the next boot.
  if [ -d /run/systemd/system ]; then
    for pkg in "$@"; do
      if systemctl cat "$pkg.service" >/dev/null 2>&1; then
        as_root systemctl disable --now "$pkg.service" >/dev/null 2>&1 || true
        say "the service of $pkg is left stopped and disabled; 'systemctl enable --now $pkg' if you want it"
      fi
    done
  fi
)

# apt_get tries with the package lists as they are, which works without a
# network where the packages are cached, and refreshes the lists if that fails.
apt_get() {
  local flags=(-y -q --no-install-recommends)
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get install "${flags[@]}" "$@" >&2 && return
  as_root apt-get update -q >&2 && as_root apt-get install "${flags[@]}" "$@" >&2
}
