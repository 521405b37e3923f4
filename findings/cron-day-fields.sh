#!/bin/sh
# supercronic, robfig/cron and croniter run "0 0 */2 * 1" on odd days and on Mondays; cron runs it on odd Mondays.
#
# Expected: crontab(5) of cronie: either day field is enough if both are restricted, that is, contain no "*". */2 contains one, so
#   both must match: Mondays that are an odd day of the month. (Debian's crontab(5) says "aren't *", which can be read the other
#   way; its cron, Vixie's as cronie's is, does the same: a field that begins with "*" is no restriction.)
# Seen: all three take */2 for a restriction, as if it were 1-31/2, and run on each odd day and each Monday: on 17 days of June 2026,
#   not on 3. supercronic calls itself crontab-compatible; croniter has an option for cron's reading, implement_cron_bug, off by
#   default.
# Versions: aptible/supercronic 0.2.48, robfig/cron 3.0.1, croniter 7.0.0.
# Matters: a crontab that moves into a container, where supercronic takes cron's place, runs such a job five times as often, without
#   a warning. Spell the days out (1-31/2), and let the job test the weekday.
set -eu
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
export GOTOOLCHAIN=go1.26.8 GOPATH="$dir/go" GOCACHE="$dir/cache"
python3 -m venv venv
venv/bin/pip install -q croniter==7.0.0

cat > stated <<'END'
cronie      1 15 29
robfig/cron 1 3 5 7 8 9 11 13 15 17 19 21 22 23 25 27 29
supercronic 1 3 5 7 8 9 11 13 15 17 19 21 22 23 25 27 29
croniter    1 3 5 7 8 9 11 13 15 17 19 21 22 23 25 27 29
END

cat > main.go <<'END'
package main

import (
	"fmt"
	"time"

	"github.com/aptible/supercronic/cronexpr"
	"github.com/robfig/cron/v3"
)

const line = "0 0 */2 * 1"

func days(name string, next func(time.Time) time.Time) {
	fmt.Print(name)
	for day := next(time.Date(2026, 5, 31, 12, 0, 0, 0, time.UTC)); day.Month() == time.June; day = next(day) {
		fmt.Print(" ", day.Day())
	}
	fmt.Println()
}

func main() {
	schedule, err := cron.ParseStandard(line)
	if err != nil {
		panic(err)
	}
	days("robfig/cron", schedule.Next)
	days("supercronic", cronexpr.MustParse(line).Next)
}
END
go mod init try 2> log
go get github.com/aptible/supercronic@v0.2.48 github.com/robfig/cron/v3@v3.0.1 2>> log

cat > try.py <<'END'
from datetime import datetime

from croniter import croniter

schedule = croniter("0 0 */2 * 1", datetime(2026, 5, 31, 12))
days = []
while (day := schedule.get_next(datetime)).month == 6:
    days.append(day.day)
print("croniter   ", *days)
END
{
    # What cronie's manual says, worked out from the calendar: both fields match.
    python3 -c 'import datetime as d; print("cronie     ", *(n for n in range(1, 31, 2) if d.date(2026, 6, n).isoweekday() == 1))'
    go run .
    venv/bin/python try.py
} > seen
diff -u stated seen && echo "OK: as stated"
