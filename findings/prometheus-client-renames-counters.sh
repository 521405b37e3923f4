#!/bin/sh
# prometheus_client's parser renames the samples of a counter whose name doesn't end in _total.
#
# Expected: what it parses, it exposes again under the same names. The text format 0.0.4 has no rule on suffixes; a counter named
#   `envoy_cluster_update_success` is valid, and Prometheus stores it under that name. `_total` is a demand of OpenMetrics.
# Seen: text_string_to_metric_families gives the sample `requests` of a counter the name `requests_total`. Exposed again, the old
#   series is gone and a new one is there, HELP and TYPE included. A gauge or an untyped metric keeps its name. The parser for
#   OpenMetrics is another function, and raises on such a name. Go's expfmt keeps it.
# Versions: prometheus_client 0.26.0; prometheus/common 0.74.0 (expfmt).
# Matters: a supervisor or sidecar that scrapes its children and serves one page for all of them breaks dashboards and alerts on
#   these counters, with no error anywhere. Merge expositions as text, or undo the renaming by the TYPE line.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"
python3 -m venv venv
venv/bin/pip install -q prometheus_client==0.26.0

cat > exposition <<'END'
# HELP requests Served.
# TYPE requests counter
requests{code="200"} 5
# HELP open Now.
# TYPE open gauge
open 2
END

cat > stated <<'END'
prometheus_client
# HELP requests_total Served.
# TYPE requests_total counter
requests_total{code="200"} 5.0
# HELP open Now.
# TYPE open gauge
open 2.0
expfmt
# HELP open Now.
# TYPE open gauge
open 2
# HELP requests Served.
# TYPE requests counter
requests{code="200"} 5
END

cat > again.py <<'END'
import sys

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families


class Again:
    def collect(self):
        with open("exposition") as file:
            return list(text_string_to_metric_families(file.read()))


registry = CollectorRegistry()
registry.register(Again())
sys.stdout.write(generate_latest(registry).decode())
END

cat > main.go <<'END'
package main

import (
	"os"
	"sort"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func main() {
	file, err := os.Open("exposition")
	if err != nil {
		panic(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(file)
	if err != nil {
		panic(err)
	}
	names := []string{}
	for name := range families {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if _, err := expfmt.MetricFamilyToText(os.Stdout, families[name]); err != nil {
			panic(err)
		}
	}
}
END
go mod init try 2> log
go get github.com/prometheus/common/expfmt@v0.74.0 2>> log
{
    echo prometheus_client
    venv/bin/python again.py
    echo expfmt
    go run .
} > seen
diff -u stated seen && echo "OK: as stated"
