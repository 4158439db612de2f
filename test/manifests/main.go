// Command manifests checks the files under deploy/ that nothing here can run, by
// the code of those who read them: Dockerfiles by BuildKit's own linter, and
// Kubernetes manifests by a strict decoder into Kubernetes' own types.
//
//	go run . ../../deploy/Dockerfile ../../deploy/kubernetes/sidecar.yaml
//
// It is a module of its own, so that none of that is among the program's
// dependencies. It exits with 1 if there is anything to say.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	failed := false
	for _, file := range os.Args[1:] {
		text, err := os.ReadFile(file)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		check := checkManifests
		if strings.HasSuffix(file, "Dockerfile") {
			check = checkDockerfile
		}
		for _, complaint := range check(text) {
			fmt.Printf("%s: %s\n", file, complaint)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
