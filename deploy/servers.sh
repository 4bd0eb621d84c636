#!/usr/bin/env bash
# Fetches the servers of other versions that the tests are run against, and
# prints the path of each, one a line: redis-server and valkey-server of newer
# Debian suites than the system's, to be run with their own loader and
# libraries. Nothing is installed: they are unpacked into the user's cache,
# where they stay (remove the folder to have them fetched anew).
#
# The mirror is the one that this system's apt has its own suite from.
#
# Usage: deploy/servers.sh [PACKAGE/SUITE]...
#   deploy/servers.sh                       all of them
#   deploy/servers.sh valkey-server/sid     one
# Needs no network where they are in the cache. Leaves with 77 where one cannot
# be had.
#   export SLUICE_TEST_SERVERS=$(deploy/servers.sh | paste -sd:)
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/common.sh

SERVERS=(redis-server/trixie valkey-server/trixie valkey-server/sid)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/servers
work=""
trap 'if [ -n "$work" ]; then rm -rf "$work"; fi' EXIT

skip() { say "servers: $*"; exit 77; }

# mirror prints the address that apt has the system's own suite from.
mirror() {
  local suite
  # shellcheck disable=SC1091 # of the system
  suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  # Before the first update apt does not know whose an archive is.
  apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
    awk -v suite="$suite" '$2 == suite && $3 == "main" { if ($4 == "Debian") { print $1; found = 1; exit } other = other ? other : $1 }
      END { if (!found && other) print other }'
}

# fetch PACKAGE SUITE INTO: the package and all that it depends on, by an apt
# with lists, a cache and a state of its own in which nothing is installed.
fetch() {
  local from apt=$work/apt-$2 opts
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts"
  from=$(mirror)
  [ -n "$from" ] || skip "apt has no Debian suite to derive a mirror from"
  : >"$apt/status"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "$from" "$2" >"$apt/parts/servers.sources"
  opts=(-q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/parts" -o Dir::Etc::preferencesparts=/dev/null
    -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache"
    -o Debug::NoLocking=1 -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Retries=1
    -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
  apt-get "${opts[@]}" -o APT::Update::Error-Mode=any update >&2 || skip "apt-get cannot update the lists of $2"
  apt-get "${opts[@]}" -y --no-install-recommends --download-only install "$1" >&2 || skip "apt-get cannot fetch $1 of $2"
  mkdir -p "$3"
  local deb
  for deb in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$3"; done
}

# server PACKAGE SUITE: prints the path of a program that runs it.
server() {
  local dir=$cache/$1-$2 path version loader libraries
  if ! compgen -G "$dir/bin/*" >/dev/null; then
    say "servers: fetching $1 of $2, into $dir"
    fetch "$1" "$2" "$work/root"
    loader=$(cd "$work/root" && find usr -name 'ld-linux*.so.*' -print -quit)
    libraries=$(cd "$work/root" && find usr -name libc.so.6 -print -quit)
    [ -n "$loader" ] && [ -x "$work/root/usr/bin/$1" ] || die "$1 of $2 has no $1 or brings no loader"
    libraries=$(dirname "$libraries")
    version=$("$work/root/$loader" --library-path "$work/root/$libraries" "$work/root/usr/bin/$1" --version |
      sed -n 's/.* v=\([0-9.]*\).*/\1/p')
    [ -n "$version" ] || die "$1 of $2 does not run with its own loader"
    rm -rf "$work"/root/{etc,var,usr/share} # what no server needs
    mkdir -p "$work/new/bin"
    path=$work/new/bin/${1%-server}-$version
    cat >"$path" <<EOS
#!/bin/sh
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")/root
exec "\$root/$loader" --library-path "\$root/$libraries" "\$root/usr/bin/$1" "\$@"
EOS
    chmod 755 "$path"
    # The last step makes it complete: a run that is cut short leaves nothing.
    mv "$work/root" "$work/new/root"
    rm -rf "$dir"
    mv "$work/new" "$dir"
  fi
  compgen -G "$dir/bin/*"
}

have apt-get && have dpkg-deb || skip "there is no apt-get to fetch other versions with; set SLUICE_TEST_SERVERS"
servers=("$@")
[ $# -gt 0 ] || servers=("${SERVERS[@]}")
for one in "${servers[@]}"; do
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/.fetch.XXXXXX")
  server "${one%/*}" "${one#*/}"
  rm -rf "$work"
done
