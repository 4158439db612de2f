"""Python's own urllib.request, repeated by the app."""
import os
import urllib.error
import urllib.request

env = os.environ
headers = {"Authorization": "Bearer " + env["CLIENT_TOKEN"], "Content-Type": "application/json"}
if env["CLIENT_KEY"]:
    headers["Idempotency-Key"] = env["CLIENT_KEY"]

result = ""
for _ in range(int(env["CLIENT_TRIES"])):
    request = urllib.request.Request(env["CLIENT_URL"] + env["CLIENT_PATH"], env["CLIENT_BODY"].encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=float(env["CLIENT_TIMEOUT"])) as answer:
            result = f"{answer.status}\n{answer.read().decode()}"
            break
    except urllib.error.HTTPError as e:
        result = f"{e.code}\n{e.read().decode()}"
        if e.code < 500:
            break
    except Exception as e:
        result = f"error {type(e).__name__} {e}"
print(result)
