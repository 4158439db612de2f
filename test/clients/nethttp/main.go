// Command nethttp sends an order with Go's own HTTP client, as an app with a
// loop around it does.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	seconds, _ := strconv.ParseFloat(os.Getenv("CLIENT_TIMEOUT"), 64)
	client := &http.Client{Timeout: time.Duration(seconds * float64(time.Second))}
	if os.Getenv("CLIENT_WARM") != "" {
		_, _ = send(client, http.MethodGet, "/api/v2/users/me", "")
	}
	tries, _ := strconv.Atoi(os.Getenv("CLIENT_TRIES"))
	result := ""
	for range tries {
		status, body := send(client, http.MethodPost, os.Getenv("CLIENT_PATH"), os.Getenv("CLIENT_BODY"))
		if status == 0 {
			result = "error " + body
			continue
		}
		result = fmt.Sprintf("%d\n%s", status, body)
		if status < 500 {
			break
		}
	}
	fmt.Println(result)
}

// send returns the answer's status and body, or zero and what went wrong.
func send(client *http.Client, method, path, body string) (int, string) {
	req, err := http.NewRequest(method, os.Getenv("CLIENT_URL")+path, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+os.Getenv("CLIENT_TOKEN"))
	req.Header.Set("Content-Type", "application/json")
	if key := os.Getenv("CLIENT_KEY"); key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
