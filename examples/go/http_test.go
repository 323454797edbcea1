package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ask sends one request to handler and returns the answer.
func ask(handler http.Handler, method, path, body string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(method, path, strings.NewReader(body)))
	return answer
}

func TestALinkIsMadeFollowedCountedAndRemoved(t *testing.T) {
	handler := newHandler(newStore())

	answer := ask(handler, "POST", "/api/links", `{"url": "https://example.org/a?b=c", "code": "abc"}`)
	if answer.Code != http.StatusCreated || answer.Header().Get("Location") != "/api/links/abc" {
		t.Fatalf("created: %d %v", answer.Code, answer.Header())
	}

	answer = ask(handler, "GET", "/abc", "")
	if answer.Code != http.StatusFound || answer.Header().Get("Location") != "https://example.org/a?b=c" {
		t.Fatalf("followed: %d %v", answer.Code, answer.Header())
	}

	var found link
	answer = ask(handler, "GET", "/api/links/abc", "")
	if err := json.Unmarshal(answer.Body.Bytes(), &found); err != nil || found.Visits != 1 {
		t.Fatalf("counted: %s (%v)", answer.Body, err)
	}

	if answer = ask(handler, "DELETE", "/api/links/abc", ""); answer.Code != http.StatusNoContent {
		t.Fatalf("removed: %d", answer.Code)
	}
	if answer = ask(handler, "GET", "/abc", ""); answer.Code != http.StatusNotFound {
		t.Fatalf("followed after removal: %d", answer.Code)
	}
}

func TestEachMistakeHasItsStatus(t *testing.T) {
	handler := newHandler(newStore())
	ask(handler, "POST", "/api/links", `{"url": "https://example.org", "code": "taken"}`)

	cases := []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/api/links", `not json`, http.StatusBadRequest},
		{"POST", "/api/links", `{}`, http.StatusBadRequest},
		{"POST", "/api/links", `{"url": "example.org"}`, http.StatusBadRequest},
		{"POST", "/api/links", `{"url": "javascript:alert(1)"}`, http.StatusBadRequest},
		{"POST", "/api/links", `{"url": "https://example.org", "code": "a/b"}`, http.StatusBadRequest},
		{"POST", "/api/links", `{"url": "https://example.org", "code": "taken"}`, http.StatusConflict},
		{"POST", "/api/links", `{"url": "https://example.org", "code": "healthz"}`, http.StatusConflict},
		{"POST", "/api/links", `{"url": "` + strings.Repeat("x", maxBody) + `"}`, http.StatusBadRequest},
		{"PUT", "/api/links", ``, http.StatusMethodNotAllowed},
		{"GET", "/api/links/nowhere", ``, http.StatusNotFound},
		{"DELETE", "/api/links/nowhere", ``, http.StatusNotFound},
		{"POST", "/api/links/taken", ``, http.StatusMethodNotAllowed},
		{"GET", "/nowhere", ``, http.StatusNotFound},
	}
	for _, c := range cases {
		if answer := ask(handler, c.method, c.path, c.body); answer.Code != c.status {
			t.Errorf("%s %s %.60s: %d, not %d", c.method, c.path, c.body, answer.Code, c.status)
		}
	}
}

func TestThePageListsLinksAndEscapesThem(t *testing.T) {
	handler := newHandler(newStore())
	ask(handler, "POST", "/api/links", `{"url": "https://example.org/?<script>"}`)

	body := ask(handler, "GET", "/", "").Body.String()
	if !strings.Contains(body, "https://example.org/?&lt;script&gt;") {
		t.Error(body)
	}
}

func TestHealthIsOk(t *testing.T) {
	if answer := ask(newHandler(newStore()), "GET", "/healthz", ""); answer.Code != http.StatusOK {
		t.Error(answer.Code)
	}
}
