#!/bin/sh
# Fuzzes each target for a while: ./test/fuzz.sh [-plain] [duration of each]
#
# It takes 10 minutes each by default, and stops at the first failure. The input
# that failed is kept where it says, for go test to try again from then on.
#
# With -plain the fuzzer is not guided by what the code covers, and uses what
# go test -race has compiled already: to be guided takes minutes of compiling.
set -eu
cd "$(dirname "$0")/.."

build=-fuzz=Fuzz # compiles in what guides the fuzzer
if [ "${1-}" = -plain ]; then
	build=-race
	shift
fi
duration=${1:-10m}
tags=nobadger,nomysql,nopgx

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

grep -rl '^func Fuzz' --include='*_test.go' . | xargs -n 1 dirname | sort -u >"$work/packages"
while read -r package; do
	go test -c -tags "$tags" -ldflags -w "$build" -o "$work/fuzz.test" "$package" </dev/null
	cache=$work/corpus
	[ "$build" = -race ] || cache=$(go env GOCACHE)/fuzz/$(go list -tags "$tags" "$package")
	(cd "$package" && "$work/fuzz.test" -test.list '^Fuzz') >"$work/targets" </dev/null
	while read -r target; do
		echo "== $package $target"
		if ! (cd "$package" && "$work/fuzz.test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$duration" \
			-test.fuzzminimizetime 1s -test.fuzzcachedir "$cache" -test.parallel 2) >"$work/log" 2>&1 </dev/null; then
			# Before Go 1.27 the end of the time itself is a failure at times
			# (go.dev/issue/75804). Then there is no input that failed.
			if grep -q '^    context deadline exceeded$' "$work/log" && ! grep -q 'Failing input' "$work/log"; then
				echo 'PASS: the time was up'
				continue
			fi
			cat "$work/log"
			echo "$target failed; what it failed with is kept in $package/testdata/fuzz/$target" >&2
			exit 1
		fi
		tail -n 2 "$work/log"
	done <"$work/targets"
done <"$work/packages"
