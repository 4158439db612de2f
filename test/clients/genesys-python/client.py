"""Genesys' SDK for Python, which posts again by itself whatever its caller
does: urllib3's Retry with its defaults, and POST among the methods."""
import json
import os

import PureCloudPlatformClientV2 as sdk
from PureCloudPlatformClientV2.rest import ApiException

env = os.environ
sdk.configuration.host = env["CLIENT_URL"]
client = sdk.api_client.ApiClient().get_client_credentials_token(env["CLIENT_ID"], env["CLIENT_SECRET"])
if env["CLIENT_KEY"]:
    client.set_default_header("Idempotency-Key", env["CLIENT_KEY"])
if env["CLIENT_WARM"]:
    sdk.UsersApi(client).get_users_me()
api = sdk.IntegrationsApi(client)
try:
    answer = api.post_integrations_action_execute(env["CLIENT_ACTION"], json.loads(env["CLIENT_BODY"]))
    print(f"200\n{json.dumps(answer)}")
except ApiException as e:
    print(f"{e.status}\n{e.body}")
except Exception as e:
    print(f"error {type(e).__name__} {e}")
