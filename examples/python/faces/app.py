"""The routes of the service.

GET  /                  the page: the latest faces, and a form for another
POST /                  the page's form
GET  /face.svg?name=…   the picture alone
GET  /api/faces         the latest names and their views
POST /api/faces         {"name": …}
GET  /healthz           ok
"""

from dataclasses import asdict

from flask import Flask, Response, abort, jsonify, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from .gallery import Gallery, Portrait
from .picture import svg

LONGEST_NAME = 80


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
    gallery = Gallery()

    @app.get("/")
    def page():
        return render_template("page.html", portraits=gallery.latest())

    @app.post("/")
    def submit():
        gallery.view(checked(request.form.get("name")))
        return redirect(url_for("page"), code=303)

    @app.get("/face.svg")
    def face():
        answer = Response(svg(checked(request.args.get("name"))), mimetype="image/svg+xml")
        # A name never changes its face.
        answer.cache_control.public = True
        answer.cache_control.max_age = 365 * 24 * 3600
        answer.cache_control.immutable = True
        return answer

    @app.get("/api/faces")
    def latest():
        return jsonify([described(portrait) for portrait in gallery.latest()])

    @app.post("/api/faces")
    def create():
        body = request.get_json()
        portrait = gallery.view(checked(body.get("name") if isinstance(body, dict) else None))
        answer = jsonify(described(portrait))
        answer.location = address(portrait)
        return answer, 201

    @app.get("/healthz")
    def health():
        return "ok\n", {"Content-Type": "text/plain"}

    @app.errorhandler(HTTPException)
    def complain(error: HTTPException):
        if request.path.startswith("/api/"):
            return {"error": error.description}, error.code
        return error

    return app


def checked(name: object) -> str:
    """The name, if it is one; otherwise the request ends with 400."""
    if not isinstance(name, str) or not name.strip():
        abort(400, "a face needs a name")
    if len(name) > LONGEST_NAME:
        abort(400, f"a name has at most {LONGEST_NAME} characters")
    return name


def described(portrait: Portrait) -> dict:
    return asdict(portrait) | {"face": address(portrait)}


def address(portrait: Portrait) -> str:
    return url_for("face", name=portrait.name)
