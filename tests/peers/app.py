"""The app behind gunicorn: one route that ignores the request's body, one that reads it."""

from flask import Flask, request

RESPONSE = b"x" * 614_400

app = Flask(__name__)


@app.route("/ignore", methods=["GET", "POST"])
def ignore():
    return RESPONSE


@app.route("/read", methods=["GET", "POST"])
def read():
    request.get_data()
    return RESPONSE
