import pytest

from faces.app import create_app
from faces.picture import svg


@pytest.fixture
def client():
    return create_app().test_client()


def test_a_face_is_made_listed_and_drawn(client):
    made = client.post("/api/faces", json={"name": "Ada Lovelace"})
    assert made.status_code == 201
    assert made.json == {"name": "Ada Lovelace", "views": 1, "face": "/face.svg?name=Ada+Lovelace"}
    assert client.get("/api/faces").json == [made.json]

    drawn = client.get(made.location)
    assert drawn.mimetype == "image/svg+xml"
    assert drawn.cache_control.immutable


def test_the_form_leads_back_to_the_page(client):
    answer = client.post("/", data={"name": "<b>Ada</b>"}, follow_redirects=True)
    assert answer.request.path == "/"
    assert "&lt;b&gt;Ada&lt;/b&gt;" in answer.text


@pytest.mark.parametrize(
    "body",
    [{}, [], {"name": ""}, {"name": "  "}, {"name": 7}, {"name": "x" * 81}],
)
def test_what_is_no_name_is_refused(client, body):
    answer = client.post("/api/faces", json=body)
    assert answer.status_code == 400
    assert "name" in answer.json["error"]


@pytest.mark.parametrize("name", ["a/b", "..", "a?b&c=d#e", "ü 🙂", "100%"])
def test_the_address_of_a_face_holds_any_name(client, name):
    client.post("/api/faces", json={"name": name})
    (listed,) = client.get("/api/faces").json
    assert client.get(listed["face"]).text == svg(name)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/face.svg", 400), ("GET", "/api/nowhere", 404), ("DELETE", "/api/faces", 405)],
)
def test_each_other_mistake_has_its_status(client, method, path, status):
    assert client.open(path, method=method).status_code == status


def test_health_is_ok(client):
    assert client.get("/healthz").text == "ok\n"
