#!/bin/sh
# curl, in a loop as shell scripts have it, or with its own --retry.
set -u
out=$(mktemp)
trap 'rm -f "$out"' EXIT

tries=$CLIENT_TRIES
set -- -sS -o "$out" -w '%{http_code}' --max-time "$CLIENT_TIMEOUT"
case $CLIENT_MODE in
retry) set -- "$@" --retry $((CLIENT_TRIES - 1)) --retry-all-errors --retry-delay 1; tries=1 ;;
http10) set -- "$@" --http1.0 ;;
expect) set -- "$@" -H 'Expect: 100-continue' --expect100-timeout 5 ;;
chunked) set -- "$@" -H 'Transfer-Encoding: chunked' ;;
compressed) set -- "$@" --compressed ;;
esac
[ -z "$CLIENT_KEY" ] || set -- "$@" -H "Idempotency-Key: $CLIENT_KEY"
set -- "$@" -H "Authorization: Bearer $CLIENT_TOKEN" -H 'Content-Type: application/json' \
	--data-binary "$CLIENT_BODY" "$CLIENT_URL$CLIENT_PATH"
if [ -n "$CLIENT_WARM" ]; then # the same process, so the same connection
	set -- -s -o /dev/null -H "Authorization: Bearer $CLIENT_TOKEN" "$CLIENT_URL/api/v2/users/me" --next "$@"
fi

while :; do
	tries=$((tries - 1))
	: >"$out"
	status=$(curl "$@" 2>"$out.err")
	code=$?
	status=$(printf %s "$status" | tail -c 3)
	if [ "$code" = 0 ] && [ "$status" -lt 500 ] || [ "$tries" -le 0 ]; then break; fi
done
if [ "$code" = 0 ]; then echo "$status"; else echo "error $(tail -n 1 "$out.err")"; fi
cat "$out"
rm -f "$out.err"
