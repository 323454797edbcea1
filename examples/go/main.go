// Shortcut is a link shortener: it hands out short codes for long addresses, sends
// visitors on and counts them. Links live in memory; a restart forgets them.
//
// It listens on $PORT (default 8080) until it gets SIGTERM or SIGINT, and then finishes
// the requests that are under way. `shortcut -health` asks a running one whether it is
// well, so that an image without a shell can have a HEALTHCHECK.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "dev"

func main() {
	health := flag.Bool("health", false, "ask the running service whether it is well, then exit")
	flag.Parse()
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}

	run := serve
	if *health {
		run = checkHealth
	}
	if err := run(port); err != nil {
		log.Fatal(err)
	}
}

func serve(port string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	server := newServer(":"+port, newHandler(newStore()))
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Printf("shortcut %s listens on port %s", version, port)

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		log.Print("shutting down")
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return fmt.Errorf("requests were cut off: %w", err)
	}
	return nil
}

func checkHealth(port string) error {
	client := http.Client{Timeout: 2 * time.Second}
	response, err := client.Get("http://" + net.JoinHostPort("127.0.0.1", port) + "/healthz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("unhealthy: %s", response.Status)
	}
	return nil
}
