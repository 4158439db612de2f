// Command genesys-sidecar is Caddy with the genesys_cloud module.
package main

import (
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "genesys-sidecar/caddymodule"
)

func main() {
	caddy.CustomBinaryName = "genesys-sidecar" // in help texts and shell completion
	caddycmd.Main()
}
