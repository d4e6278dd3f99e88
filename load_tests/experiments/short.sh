#!/bin/sh
# Short versions of all experiments, and a report of them: what `make experiments` runs.
# $1: the bidding command; $2: the folder for results and report. Goes on after a run that was not proved, and fails in the end.
set -u
bidding=$1
out=$2
failed=0
mkdir -p "$out"
run() { # $1: name of the result; the rest: the experiment
    name=$1
    shift
    echo "== $name"
    # If the experiment is refused, the report must not show the result of a former run.
    rm -f "$out/$name.json"
    "$bidding" experiment "$@" --out "$out/$name.json"
    case $? in
    0) ;;
    130) exit 130 ;;
    *) failed=1 ;;
    esac
}
run ladder contention --private --users 50,200,500 --duration 10s
run ladder-optimistic contention --private --users 50,200 --duration 8s --strategy optimistic
run ladder-open contention --private --users 200 --rate 500 --duration 10s
run fanout fanout --private --connections 100,500,1000 --duration 8s --slow 10
for part in broadcast nats redis gateway; do
    run "kill-$part" resilience --private --kill "$part" --phase 4s
done
run twin network --delay 15ms --cpu 0.5 --users 100,500 --duration 8s
run environment-embedded environment --backend embedded --repeat 3
run environment-emulator environment --backend emulator --repeat 3
"$bidding" experiment compare "$out"/*.json --out "$out/report.html" || failed=1
exit $failed
