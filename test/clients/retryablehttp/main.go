// Command retryablehttp sends an order with hashicorp/go-retryablehttp, which
// sends again by itself: on a lost connection, a timeout and any 5xx.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

func main() {
	client := retryablehttp.NewClient() // RetryMax 4
	client.Logger = nil
	client.RetryWaitMin, client.RetryWaitMax = 100*time.Millisecond, 500*time.Millisecond // 1s and 30s unless set
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler
	seconds, _ := strconv.ParseFloat(os.Getenv("CLIENT_TIMEOUT"), 64)
	client.HTTPClient.Timeout = time.Duration(seconds * float64(time.Second))
	if os.Getenv("CLIENT_TRIES") == "1" {
		client.RetryMax = 0
	}
	if os.Getenv("CLIENT_WARM") != "" {
		_, _ = send(client, http.MethodGet, "/api/v2/users/me", "")
	}
	status, body := send(client, http.MethodPost, os.Getenv("CLIENT_PATH"), os.Getenv("CLIENT_BODY"))
	if status == 0 {
		fmt.Println("error " + body)
		return
	}
	fmt.Printf("%d\n%s\n", status, body)
}

// send returns the answer's status and body, or zero and what went wrong.
func send(client *retryablehttp.Client, method, path, body string) (int, string) {
	req, err := retryablehttp.NewRequest(method, os.Getenv("CLIENT_URL")+path, strings.NewReader(body))
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
