package main

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// newServer returns a server whose Shutdown waits for requests and for nothing else.
func newServer(address string, handler http.Handler) *http.Server {
	silent := &silentConns{conns: make(map[net.Conn]bool)}
	server := &http.Server{
		Addr:              address,
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ConnState:         silent.track,
	}
	server.RegisterOnShutdown(silent.close)
	return server
}

// silentConns are the connections on which no byte has come yet. Browsers open some in
// advance, and http.Server.Shutdown would give each of them five seconds.
type silentConns struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (s *silentConns) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateNew {
		s.conns[conn] = true
	} else {
		delete(s.conns, conn)
	}
}

func (s *silentConns) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
}
