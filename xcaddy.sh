#!/bin/sh
# Builds a Caddy with this module in it: ./xcaddy.sh [output]
set -eu
cd "$(dirname "$0")"
module=$(go list -m)
caddy=$(go list -m -f '{{.Version}}' github.com/caddyserver/caddy/v2)
output=${1:-./caddy}

build() {
	go tool xcaddy build "$caddy" --output "$output" \
		--with "$module/caddymodule" --replace "$module=."
}

# Before it finds the module here, xcaddy asks the module proxy for the package's
# path as if that were a module. Some proxies refuse to answer instead of saying
# no; the module cache, taken as a proxy, says no.
if ! build; then
	go mod download
	GOPROXY="file://$(go env GOMODCACHE)/cache/download" build
fi
