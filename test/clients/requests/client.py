"""Python's requests: as it comes, repeated by the app, or with urllib3's Retry
mounted, which repeats by itself."""
import os

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

env = os.environ
tries = int(env["CLIENT_TRIES"])
session = requests.Session()
session.headers["Authorization"] = "Bearer " + env["CLIENT_TOKEN"]
if env["CLIENT_MODE"] == "retry":
    retry = Retry(total=tries - 1, allowed_methods=None, status_forcelist=[500, 502, 503, 504], raise_on_status=False)
    session.mount("http://", HTTPAdapter(max_retries=retry))
    tries = 1
headers = {"Content-Type": "application/json"}
if env["CLIENT_KEY"]:
    headers["Idempotency-Key"] = env["CLIENT_KEY"]
if env["CLIENT_WARM"]:
    session.get(env["CLIENT_URL"] + "/api/v2/users/me")

result = ""
for _ in range(tries):
    try:
        answer = session.post(
            env["CLIENT_URL"] + env["CLIENT_PATH"],
            data=env["CLIENT_BODY"],
            headers=headers,
            timeout=float(env["CLIENT_TIMEOUT"]),
        )
        result = f"{answer.status_code}\n{answer.text}"
        if answer.status_code < 500:
            break
    except requests.RequestException as e:
        result = f"error {type(e).__name__} {e}"
print(result)
