package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(Webhook{})
}

// Webhook is a handler of events which posts each to a URL, as the JSON object
// {"event": …, "time": …, "data": {…}}. Caddy has no handler of events of its
// own; others can be built in.
//
// It does not hold up the event. A post that fails is tried again twice; after
// that the log says so.
type Webhook struct {
	// Where to post to. Placeholders are replaced when the configuration is
	// loaded.
	URL string `json:"url"`

	url string
	log *zap.Logger
}

const (
	webhookTimeout  = 10 * time.Second // for one try
	webhookTries    = 3
	webhookInterval = 2 * time.Second // between them, doubled each time
)

// webhookTurns bounds how many posts are under way or waiting to be tried again.
var webhookTurns = make(chan struct{}, 64)

// webhookClient follows no redirects, which turn a POST into a GET.
var webhookClient = &http.Client{
	Timeout:       webhookTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// CaddyModule returns the Caddy module information.
func (Webhook) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "events.handlers.genesys_webhook",
		New: func() caddy.Module { return new(Webhook) },
	}
}

// Provision reads the URL.
func (h *Webhook) Provision(ctx caddy.Context) error {
	h.log = ctx.Logger()
	text, err := caddy.NewReplacer().ReplaceOrErr(h.URL, true, true)
	if err != nil {
		return fmt.Errorf("reading url: %w", err)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("reading url: it must be an absolute URL, such as https://alarms.example/genesys")
	}
	h.url = text
	return nil
}

// Handle posts the event.
func (h *Webhook) Handle(_ context.Context, e caddy.Event) error {
	body, err := json.Marshal(map[string]any{"event": e.Name(), "time": e.Timestamp().UTC(), "data": e.Data})
	if err != nil {
		return fmt.Errorf("encoding event: %w", err)
	}
	select {
	case webhookTurns <- struct{}{}:
	default:
		return errors.New("posting event: too many are under way; is anybody there to take them?")
	}
	go func() {
		defer func() { <-webhookTurns }()
		var err error
		for n := range webhookTries {
			if n > 0 {
				time.Sleep(webhookInterval << (n - 1))
			}
			if err = h.post(body); err == nil {
				return
			}
		}
		h.log.Error("posting event", zap.String("event", e.Name()), zap.Error(err))
	}()
	return nil
}

func (h *Webhook) post(body []byte) error {
	resp, err := webhookClient.Post(h.url, "application/json", bytes.NewReader(body))
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // the URL may hold a secret
		}
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode >= 300 {
		return errors.New("it was answered " + resp.Status)
	}
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	on <event> genesys_webhook <url>
func (h *Webhook) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume handler name
	return parseArg(d, &h.URL)
}

// Interface guards
var (
	_ caddyevents.Handler   = (*Webhook)(nil)
	_ caddy.Provisioner     = (*Webhook)(nil)
	_ caddyfile.Unmarshaler = (*Webhook)(nil)
)
