package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"sort"
	"sync"
)

var (
	errTaken    = errors.New("this code is taken")
	errNotFound = errors.New("no such link")
)

// invalid says what is wrong with a request, in words for the person who made it.
type invalid string

func (reason invalid) Error() string { return string(reason) }

// A link sends /Code on to URL.
type link struct {
	Code   string `json:"code"`
	URL    string `json:"url"`
	Visits int    `json:"visits"`
}

// A store keeps links by code. It may be used by many requests at once.
type store struct {
	mu    sync.Mutex
	links map[string]*link
}

func newStore() *store {
	return &store{links: make(map[string]*link)}
}

// Codes are read aloud and typed in: no 0 and O, no 1, I and l.
const alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

var wellFormedCode = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// add keeps a link to target under code, or under a code of its own making if code is "".
func (s *store) add(target, code string) (link, error) {
	if err := checkTarget(target); err != nil {
		return link{}, err
	}
	if code != "" && !wellFormedCode.MatchString(code) {
		return link{}, invalid("a code is 1 to 32 letters, digits, '-' or '_'")
	}
	if code == "api" || code == "healthz" {
		return link{}, errTaken
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if code == "" {
		code = s.freeCode()
	} else if s.links[code] != nil {
		return link{}, errTaken
	}
	added := &link{Code: code, URL: target}
	s.links[code] = added
	return *added, nil
}

// visit counts one visit and returns the link.
func (s *store) visit(code string) (link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.links[code]
	if found == nil {
		return link{}, errNotFound
	}
	found.Visits++
	return *found, nil
}

func (s *store) get(code string) (link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.links[code]
	if found == nil {
		return link{}, errNotFound
	}
	return *found, nil
}

func (s *store) remove(code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[code] == nil {
		return errNotFound
	}
	delete(s.links, code)
	return nil
}

// all returns every link, the most visited first.
func (s *store) all() []link {
	s.mu.Lock()
	defer s.mu.Unlock()
	links := make([]link, 0, len(s.links))
	for _, l := range s.links {
		links = append(links, *l)
	}
	sort.Slice(links, func(i, j int) bool {
		if links[i].Visits != links[j].Visits {
			return links[i].Visits > links[j].Visits
		}
		return links[i].Code < links[j].Code
	})
	return links
}

// freeCode returns a code that is not in use; the caller holds the lock.
func (s *store) freeCode() string {
	for {
		if code := randomCode(6); s.links[code] == nil {
			return code
		}
	}
}

func randomCode(length int) string {
	code := make([]byte, length)
	for i := range code {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic(fmt.Sprintf("the system has no randomness: %v", err))
		}
		code[i] = alphabet[n.Int64()]
	}
	return string(code)
}

// checkTarget lets only absolute web addresses through: a shortener that also redirects to
// javascript: or file: is a weapon.
func checkTarget(target string) error {
	parsed, err := url.Parse(target)
	if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return invalid("the address must start with http:// or https:// and name a host")
	}
	return nil
}
