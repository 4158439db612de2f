package genesys

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// domains maps the AWS region that an organisation lives in to its domain, as
// published in Genesys' SDKs (PureCloudRegionHosts.js 262.0.0 and
// purecloud_region_hosts.py). Regions are added about once a year, so a domain
// that is missing here can always be given as it is.
var domains = map[string]string{
	"ap-northeast-1": "mypurecloud.jp",
	"ap-northeast-2": "apne2.pure.cloud",
	"ap-northeast-3": "apne3.pure.cloud",
	"ap-south-1":     "aps1.pure.cloud",
	"ap-southeast-1": "apse1.pure.cloud",
	"ap-southeast-2": "mypurecloud.com.au",
	"ca-central-1":   "cac1.pure.cloud",
	"eu-central-1":   "mypurecloud.de",
	"eu-central-2":   "euc2.pure.cloud",
	"eu-west-1":      "mypurecloud.ie",
	"eu-west-2":      "euw2.pure.cloud",
	"eusc-de-east-1": "edee1.eusc-pure.cloud",
	"me-central-1":   "mec1.pure.cloud",
	"mx-central-1":   "mxc1.pure.cloud",
	"sa-east-1":      "sae1.pure.cloud",
	"us-east-1":      "mypurecloud.com",
	"us-east-2":      "use2.us-gov-pure.cloud",
	"us-west-2":      "usw2.pure.cloud",
}

// Regions returns the names of the known AWS regions, sorted.
func Regions() []string { return slices.Sorted(maps.Keys(domains)) }

// domainName matches a DNS name of at least two labels, whose last one is not a
// number: "api.127.0.0.1" is no host that anybody means.
var domainName = regexp.MustCompile(
	`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Endpoints returns the base URLs of the API and of the login service for a
// region: the name of an AWS region ("eu-west-1", or "eu_west_1" as the SDKs
// spell it), or the domain of the organisation ("mypurecloud.ie"), which need
// not be a known one. Case, surrounding space and a leading "api." are ignored.
//
// An unknown name without a dot is an error, not a domain: a mistyped region
// must not become a host name to which a secret is sent.
func Endpoints(region string) (api, login *url.URL, err error) {
	name := strings.ToLower(strings.TrimSpace(region))
	if name == "" {
		return nil, nil, errors.New("parsing region: it is empty")
	}
	domain, known := domains[strings.ReplaceAll(name, "_", "-")]
	if !known {
		domain = strings.TrimPrefix(strings.TrimSuffix(name, "."), "api.")
		switch {
		case strings.Contains(domain, "/"):
			return nil, nil, errors.New("parsing region: it is a URL or a path; a URL belongs in api_url")
		case !strings.Contains(domain, "."):
			return nil, nil, fmt.Errorf("parsing region: %q is neither a domain nor one of the known regions: %s",
				region, strings.Join(Regions(), ", "))
		case isAddress(domain) || len(domain) > 240 || !domainName.MatchString(domain):
			return nil, nil, fmt.Errorf("parsing region: %q is not a domain; an address or a port belongs in api_url", region)
		}
	}
	return &url.URL{Scheme: "https", Host: "api." + domain},
		&url.URL{Scheme: "https", Host: "login." + domain}, nil
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// ParseURL parses a base URL that an operator gave for the API or the login
// service: http or https, a host, perhaps a port, perhaps a path prefix, whose
// trailing slash is dropped, and nothing else. Its errors never repeat the
// URL, as what is wrong with it may be that it holds a password.
func ParseURL(raw string) (*url.URL, error) {
	const want = "want http(s)://host[:port][/prefix]"
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return nil, errors.New("parsing URL: it is malformed; " + want)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("parsing URL: its scheme is neither http nor https; " + want)
	case u.User != nil:
		return nil, errors.New("parsing URL: it holds a user name or password; " + want)
	case u.Hostname() == "":
		return nil, errors.New("parsing URL: it has no host; " + want)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(raw, "#"):
		return nil, errors.New("parsing URL: it has a query or a fragment; " + want)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("parsing URL: its port is not between 1 and 65535; " + want)
		}
	} else {
		u.Host = strings.TrimSuffix(u.Host, ":")
	}
	u.Host = strings.ToLower(u.Host)
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// LoginURL derives the login service's base URL from the API's, by the rule of
// Genesys' Go SDK (configuration.go: "//api." becomes "//login."). A host with
// another name is both: a gateway, or a double for tests.
func LoginURL(api *url.URL) *url.URL {
	login := *api
	if rest, ok := strings.CutPrefix(api.Host, "api."); ok {
		login.Host = "login." + rest
	}
	return &login
}

// TokenURL returns the token endpoint below the login service's base URL.
func TokenURL(login *url.URL) string { return login.JoinPath("oauth", "token").String() }
