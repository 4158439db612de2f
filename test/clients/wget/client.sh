#!/bin/sh
# wget, which tries again by itself.
set -u
out=$(mktemp)
trap 'rm -f "$out" "$out.err"' EXIT
set -- -O "$out" -S --timeout="$CLIENT_TIMEOUT" --tries="$CLIENT_TRIES" --waitretry=1 \
	--header="Authorization: Bearer $CLIENT_TOKEN" --header='Content-Type: application/json' --post-data="$CLIENT_BODY"
[ -z "$CLIENT_KEY" ] || set -- "$@" --header="Idempotency-Key: $CLIENT_KEY"
# With both, it would write the bodies of all answers one after the other.
case $CLIENT_MODE in
statuses) set -- "$@" --retry-on-http-error=500,502,503,504 ;;
*) set -- "$@" --content-on-error ;;
esac
wget "$@" "$CLIENT_URL$CLIENT_PATH" 2>"$out.err"
# Of the last try: an earlier one's status says nothing of it.
status=$(awk '/request sent, awaiting/ { s = "" } /^ *HTTP\/1\.[01] [0-9]/ { s = $2 } END { print s }' "$out.err")
if [ -n "$status" ]; then
	echo "$status"
else
	echo "error $(grep -E 'error|failed|No data' "$out.err" | tail -n 1)"
fi
cat "$out"
