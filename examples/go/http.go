package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"net/http"
	"strings"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// A request body holds one address and one code; more than this is no address.
const maxBody = 16 << 10

// service answers HTTP requests out of a store.
type service struct {
	store *store
}

// newHandler routes:
//
//	GET  /                  the page
//	POST /                  the page's form
//	GET  /CODE              on to the address, and counted
//	GET  /api/links         all links
//	POST /api/links         {"url": …, "code": …}; the code is optional
//	GET  /api/links/CODE    one link
//	DELETE /api/links/CODE  removed
//	GET  /healthz           ok
func newHandler(store *store) http.Handler {
	s := &service{store}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("/api/links", s.links)
	mux.HandleFunc("/api/links/", s.link)
	mux.HandleFunc("/", s.root)
	return mux
}

func (s *service) root(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/":
		s.follow(w, r)
	case r.Method == http.MethodPost:
		s.submit(w, r)
	default:
		s.render(w, http.StatusOK, "")
	}
}

func (s *service) follow(w http.ResponseWriter, r *http.Request) {
	found, err := s.store.visit(strings.TrimPrefix(r.URL.Path, "/"))
	if err != nil {
		s.render(w, http.StatusNotFound, err.Error())
		return
	}
	// Not 301: a browser that remembers the way is a visit that nobody counts.
	http.Redirect(w, r, found.URL, http.StatusFound)
}

func (s *service) submit(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if _, err := s.store.add(r.PostFormValue("url"), r.PostFormValue("code")); err != nil {
		s.render(w, statusOf(err), err.Error())
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *service) render(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	data := map[string]any{"Links": s.store.all(), "Message": message, "Version": version}
	if err := page.Execute(w, data); err != nil {
		log.Printf("the page was cut off: %v", err)
	}
}

func (s *service) links(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		writeJSON(w, http.StatusOK, s.store.all())
	case http.MethodPost:
		s.create(w, r)
	default:
		w.Header().Set("Allow", "GET, POST")
		writeError(w, http.StatusMethodNotAllowed, "method not allowed")
	}
}

func (s *service) create(w http.ResponseWriter, r *http.Request) {
	var wanted struct{ URL, Code string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&wanted); err != nil {
		writeError(w, http.StatusBadRequest, "the body must be a JSON object with \"url\"")
		return
	}
	added, err := s.store.add(wanted.URL, wanted.Code)
	if err != nil {
		writeError(w, statusOf(err), err.Error())
		return
	}
	w.Header().Set("Location", "/api/links/"+added.Code)
	writeJSON(w, http.StatusCreated, added)
}

func (s *service) link(w http.ResponseWriter, r *http.Request) {
	code := strings.TrimPrefix(r.URL.Path, "/api/links/")
	switch r.Method {
	case http.MethodGet:
		found, err := s.store.get(code)
		if err != nil {
			writeError(w, statusOf(err), err.Error())
			return
		}
		writeJSON(w, http.StatusOK, found)
	case http.MethodDelete:
		if err := s.store.remove(code); err != nil {
			writeError(w, statusOf(err), err.Error())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, DELETE")
		writeError(w, http.StatusMethodNotAllowed, "method not allowed")
	}
}

func statusOf(err error) int {
	var reason invalid
	switch {
	case errors.As(err, &reason):
		return http.StatusBadRequest
	case errors.Is(err, errTaken):
		return http.StatusConflict
	case errors.Is(err, errNotFound):
		return http.StatusNotFound
	default:
		return http.StatusInternalServerError
	}
}

func writeError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]string{"error": message})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Printf("an answer was cut off: %v", err)
	}
}
