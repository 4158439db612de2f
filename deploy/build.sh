#!/bin/sh
# Builds what a release has: ./deploy/build.sh [output directory]
#
# For each target a static program, and a bill of its materials; and one file of
# checksums. The version is $VERSION, or what git says of this tree. $TARGETS may
# name fewer, as in TARGETS=linux/amd64.
#
# A program tells itself what it was made of: "go version -m <program>" lists
# every module in it with version and checksum, the build's settings and Go's
# version. That is the bill of materials. (What is called *.cdx.json is the same
# for tools that want CycloneDX; it is made if $CYCLONEDX is not empty.)
set -eu
cd "$(dirname "$0")/.."
output=${1:-dist}
version=${VERSION:-$(git describe --tags --always --dirty)}
targets=${TARGETS:-linux/amd64 linux/arm64 darwin/arm64 windows/amd64}

mkdir -p "$output"
output=$(cd "$output" && pwd)
rm -f "$output"/genesys-sidecar_* "$output"/SHA256SUMS

for target in $targets; do
	os=${target%/*}
	arch=${target#*/}
	program=$output/genesys-sidecar_${os}_${arch}
	[ "$os" = windows ] && program=$program.exe
	echo "$target" >&2
	CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath \
		-tags nobadger,nomysql,nopgx \
		-ldflags "-s -w -X main.version=$version" \
		-o "$program" ./cmd/genesys-sidecar
	# Without its first line, which has the place it was built at.
	go version -m "$program" | sed 1d >"$program.sbom.txt"
	if [ -n "${CYCLONEDX:-}" ]; then
		go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 bin \
			-json -output "$program.cdx.json" -version "$version" "$program"
	fi
done

cd "$output"
if command -v sha256sum >/dev/null; then
	sha256sum genesys-sidecar_* >SHA256SUMS
else
	shasum -a 256 genesys-sidecar_* >SHA256SUMS
fi
