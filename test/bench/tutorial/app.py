"""Makes calls of data actions repeatable, in the way that tutorials show.

Finished answers are kept in a dict under the caller's key. With
TUTORIAL_SHARED=1 the HTTP client and the token are kept too; without it, as in
most tutorials, each call makes its own.
"""

import os
from typing import Any, Dict, Optional

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

API = os.environ["TUTORIAL_API"]
LOGIN = os.environ["TUTORIAL_LOGIN"]
ACTION = os.environ["TUTORIAL_ACTION"]
CREDENTIALS = (os.environ["TUTORIAL_CLIENT_ID"], os.environ["TUTORIAL_CLIENT_SECRET"])
SHARED = os.environ.get("TUTORIAL_SHARED") == "1"

app = FastAPI()
answers: Dict[str, Any] = {}
shared_client: Optional[httpx.AsyncClient] = None
shared_token: Optional[str] = None


class Invocation(BaseModel):
    idempotency_key: str
    input_payload: Dict[str, Any]


async def fetch_token(client: httpx.AsyncClient) -> str:
    response = await client.post(
        f"{LOGIN}/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=CREDENTIALS,
    )
    response.raise_for_status()
    return response.json()["access_token"]


async def run_action(client: httpx.AsyncClient, token: str, call: Invocation) -> Any:
    response = await client.post(
        f"{API}/api/v2/dataactions/actions/{ACTION}/invoke",
        json={"input": call.input_payload},
        headers={
            "Authorization": f"Bearer {token}",
            "Idempotency-Key": call.idempotency_key,
        },
    )
    response.raise_for_status()
    return response.json()


async def run_alone(call: Invocation) -> Any:
    async with httpx.AsyncClient(timeout=60) as client:
        token = await fetch_token(client)
        return await run_action(client, token, call)


async def run_shared(call: Invocation) -> Any:
    global shared_client, shared_token
    if shared_client is None:
        shared_client = httpx.AsyncClient(timeout=60)
    if shared_token is None:
        shared_token = await fetch_token(shared_client)
    return await run_action(shared_client, shared_token, call)


@app.post("/invoke")
async def invoke(call: Invocation) -> Any:
    if call.idempotency_key in answers:
        return answers[call.idempotency_key]
    try:
        answer = await (run_shared(call) if SHARED else run_alone(call))
    except httpx.HTTPError as error:
        raise HTTPException(status_code=502, detail=str(error))
    answers[call.idempotency_key] = answer
    return answer
