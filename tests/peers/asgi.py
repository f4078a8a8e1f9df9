"""The app behind uvicorn: it ignores the request's body, or reads it on the path /read."""

RESPONSE = b"x" * 614_400
LENGTH = str(len(RESPONSE)).encode()


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while scope["path"] == "/read":
        if not (await receive()).get("more_body"):
            break
    headers = [(b"content-length", LENGTH)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": RESPONSE})
