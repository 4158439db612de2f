#!/bin/sh
# Shows how much of the core the tests of each package cover, and fails where it is
# too little: ./test/coverage.sh <profile of go test -cover>
#
# What only tests use does not count: neither as what is to be covered, nor do other
# packages' tests as what covers it.
set -eu

awk -v least=90 '
function line(name, covered, all) {
	printf "%-20s %10d %7.1f %%\n", name, all, all ? 100 * covered / all : 0
}
BEGIN { count = split("idempotency pacing store genesys upstream deadline", trees) }
# A line is file:from,to statements times.
FNR > 1 {
	file = $1
	sub(/:[^:]*$/, "", file)
	if (!sub(/^.*\/caddymodule\//, "", file) || file ~ /^store\/(storetest|redis\/redistest)\//) next
	package = file
	if (!sub(/\/[^\/]*$/, "", package)) next
	tree = package
	sub(/\/.*/, "", tree)
	all[tree] += $2
	covered[tree] += $3 > 0 ? $2 : 0
	if (!(package in part)) parts[tree] = parts[tree] " " package
	part[package] += $2
	hit[package] += $3 > 0 ? $2 : 0
}
END {
	printf "%-20s %10s %9s\n", "caddymodule/", "statements", "covered"
	for (i = 1; i <= count; i++) {
		tree = trees[i]
		line(tree, covered[tree], all[tree])
		n = split(parts[tree], names, " ")
		for (j = 1; n > 1 && j <= n; j++) line("  " names[j], hit[names[j]], part[names[j]])
		if (!all[tree] || 100 * covered[tree] < least * all[tree]) low = low " " tree
	}
	if (low) {
		print "less than " least " % is covered of" low > "/dev/stderr"
		exit 1
	}
}' "$1"
