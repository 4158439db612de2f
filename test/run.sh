#!/bin/sh
# Runs all tests: ./test/run.sh [flags of go test]
#
# It needs Go. A C compiler, for the race detector, redis-server, the HTTP clients
# that the sidecar is tried with, chromium for its page, prometheus for its alerts
# and systemd-analyze for its unit, it installs itself where they are missing and
# Debian's package manager is there.
set -eu
cd "$(dirname "$0")/.."

missing=
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
command -v curl >/dev/null || missing="$missing curl"
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v node >/dev/null || missing="$missing nodejs"
command -v python3 >/dev/null || missing="$missing python3"
command -v systemd-analyze >/dev/null || missing="$missing systemd"
command -v prometheus >/dev/null || missing="$missing prometheus"
command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing="$missing chromium fonts-liberation"
python3 -c 'import requests' 2>/dev/null || missing="$missing python3-requests"
if [ -n "$missing" ]; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "the tests need$missing; install them first" >&2
		exit 1
	fi
	apt-get update -qq
	# What they recommend is three times as much, and has services in it.
	# shellcheck disable=SC2086 # a list
	apt-get install -y -qq --no-install-recommends $missing
fi

export CGO_ENABLED=1 # the race detector needs it
export GENESYS_SIDECAR_NEED_REDIS=1 # a store that was not tested is no success
export GENESYS_SIDECAR_NEED_CLIENTS=1 # nor is a client
export GENESYS_SIDECAR_NEED_SYSTEMD=1 # nor is the unit
export GENESYS_SIDECAR_NEED_PROMETHEUS=1 # nor are alerts
export GENESYS_SIDECAR_NEED_BROWSER=1 # nor is a page
tags=nobadger,nomysql,nopgx

echo '== gofmt'
unformatted=$(gofmt -l caddymodule cmd test)
if [ -n "$unformatted" ]; then
	echo "not formatted: $unformatted" >&2
	exit 1
fi

echo '== go vet'
go vet -race -tags "$tags" ./...

echo '== go test'
profile=
if [ $# = 0 ]; then
	profile=$(mktemp)
	trap 'rm -f "$profile"' EXIT
	trap 'exit 1' HUP INT TERM
	set -- -cover -coverprofile "$profile"
fi
# The longest package has taken 26 minutes, on two slow cores: the limit is for one
# that hangs. Tests that may run side by side wait most of the time, for leases and
# for processes that start.
go test -race -parallel 4 -tags "$tags" -timeout 45m "$@" ./...

echo '== coverage'
if [ -n "$profile" ]; then
	./test/coverage.sh "$profile"
else
	echo 'not looked at, since flags were given: they may leave tests out'
fi

echo '== fuzzing'
./test/fuzz.sh -plain 2s
