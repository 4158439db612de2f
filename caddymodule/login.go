package caddymodule

import (
	"io"
	"net/http"
)

// loginPaths are where the SDKs ask for a token, with and without a gateway
// configured.
var loginPaths = map[string]bool{
	"/oauth/token":       true,
	"/login/oauth/token": true,
}

// maxLoginBody bounds what is read of a login request, in bytes.
const maxLoginBody = 64 << 10

// placeholderToken lets an SDK log in that insists on it. It opens nothing:
// whatever a caller sends as its token is replaced by the real one.
const placeholderToken = `{"access_token":"genesys-sidecar","token_type":"bearer","expires_in":86400}` + "\n"

func isLogin(r *http.Request) bool {
	return r.Method == http.MethodPost && loginPaths[r.URL.Path]
}

// serveLogin answers a login without looking at the credentials.
func serveLogin(w http.ResponseWriter, r *http.Request) error {
	_, _ = io.CopyN(io.Discard, r.Body, maxLoginBody) // so that the connection can be used again
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, err := io.WriteString(w, placeholderToken)
	return err
}
