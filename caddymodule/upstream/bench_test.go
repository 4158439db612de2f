package upstream_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// BenchmarkRoundTrip compares the transport with net/http's, with a server in the
// same process. It counts what both ends take.
func BenchmarkRoundTrip(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	defer srv.Close()
	body := strings.Repeat("x", 300)
	for _, callers := range []int{1, 32} {
		for _, way := range []string{"net/http", "directly"} {
			b.Run(fmt.Sprintf("callers=%d/way=%s", callers, way), func(b *testing.B) {
				s := settings()
				s.MaxIdleConnsPerHost = 256
				defer s.CloseIdleConnections()
				rt := http.RoundTripper(s)
				if way == "directly" {
					rt = newTransport(b, s)
				}
				b.ReportAllocs()
				b.SetParallelism(callers)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if got := roundTrip(rt, post(b.Context(), srv.URL, body)); got.err != nil {
							b.Error(got.err)
							return
						}
					}
				})
			})
		}
	}
}
