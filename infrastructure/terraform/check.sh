#!/bin/sh
# fmt, and for each root module init without its state, validate and test. The tests make up AWS, so that no account is needed;
# init downloads the real provider once.
set -eu
cd "$(dirname "$0")"

if ! command -v terraform > /dev/null; then
  echo "terraform is not installed, so nothing was checked. Version 1.11 or newer: docs/deploy-aws.md, step 1." >&2
  exit 1
fi

export CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1
echo "fmt"
terraform fmt -check -recursive -diff .
for root in bootstrap envs/dev envs/prod; do
  echo "$root: init"
  if ! terraform -chdir="$root" init -backend=false -input=false -no-color > "$root/.init.log" 2>&1; then
    cat "$root/.init.log" >&2
    rm -f "$root/.init.log"
    echo "$root: the AWS provider could not be had, so $root was neither validated nor tested; fmt is fine." >&2
    exit 1
  fi
  rm -f "$root/.init.log"
  echo "$root: validate"
  terraform -chdir="$root" validate -no-color
  if [ -d "$root/tests" ]; then
    echo "$root: test"
    terraform -chdir="$root" test -no-color
  fi
done
