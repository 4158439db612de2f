package genesys

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// BenchmarkToken is what every call pays for a token that is there.
func BenchmarkToken(b *testing.B) {
	tokens := benchTokens(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := tokens.Token(context.Background()); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func benchTokens(b *testing.B) *Tokens {
	b.Helper()
	tokens := NewTokens(TokenConfig{
		TokenURL: "https://login.example.com/oauth/token",
		ClientID: fixed("the-client"),
		Secret:   fixed("the-secret"),
		Client:   &http.Client{Transport: &endpoint{life: 86400}},
	})
	b.Cleanup(tokens.Close)
	return tokens
}

func BenchmarkMatch(b *testing.B) {
	routes, err := NewRoutes(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := routes.Match("POST", "/api/v2/integrations/actions/custom_-_6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11/execute"); !ok {
			b.Fatal("it is no data action")
		}
	}
}

// BenchmarkInvoke is one attempt, without what the transport does.
func BenchmarkInvoke(b *testing.B) {
	i := &Invoker{
		Transport: instantly{},
		Tokens:    benchTokens(b),
		Pause:     new(Pause),
		Log:       slog.New(slog.DiscardHandler),
	}
	r := Request{
		Method: http.MethodPost,
		URL:    &url.URL{Scheme: "https", Host: "api.example.com", Path: "/a"},
		Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"app"}},
		Body:   []byte(`{"order": 17}`),
		Key:    "k-1",
	}
	b.ReportAllocs()
	for b.Loop() {
		if reply := i.Invoke(context.Background(), r); reply.Fate != Final {
			b.Fatal(reply)
		}
	}
}

// instantly answers without a connection.
type instantly struct{}

func (instantly) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, ContentLength: 2,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}")),
	}, nil
}
