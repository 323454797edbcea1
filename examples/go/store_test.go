package main

import (
	"sync"
	"testing"
)

func TestACodeOfOurMakingIsShortAndNew(t *testing.T) {
	s := newStore()
	seen := make(map[string]bool)
	for i := 0; i < 1000; i++ {
		added, err := s.add("https://example.org", "")
		if err != nil || len(added.Code) != 6 || seen[added.Code] {
			t.Fatalf("%+v, %v", added, err)
		}
		seen[added.Code] = true
	}
}

func TestNoVisitIsLostWhenManyComeAtOnce(t *testing.T) {
	s := newStore()
	s.add("https://example.org", "busy")
	var visitors sync.WaitGroup
	for i := 0; i < 50; i++ {
		visitors.Add(1)
		go func() {
			defer visitors.Done()
			s.visit("busy")
		}()
	}
	visitors.Wait()
	if found, _ := s.get("busy"); found.Visits != 50 {
		t.Error(found.Visits)
	}
}

func TestTheMostVisitedComesFirst(t *testing.T) {
	s := newStore()
	for _, code := range []string{"a", "b", "c"} {
		s.add("https://example.org", code)
	}
	s.visit("c")
	var order string
	for _, l := range s.all() {
		order += l.Code
	}
	if order != "cab" {
		t.Error(order)
	}
}
