#!/bin/sh
# Runs all tests: ./test/run.sh
#
# It needs Go and a C compiler (for the race detector), and nothing else that
# runs beforehand.
set -eu
cd "$(dirname "$0")/.."

export CGO_ENABLED=1 # the race detector needs it
tags=nobadger,nomysql,nopgx

echo '== gofmt'
unformatted=$(gofmt -l caddymodule cmd test)
if [ -n "$unformatted" ]; then
	echo "not formatted: $unformatted"
	exit 1
fi

echo '== go vet'
go vet -tags "$tags" ./...

echo '== go test'
go test -race -tags "$tags" -timeout 15m "$@" ./...
