#!/bin/sh
# Puts a version of Swagger UI into vendor/swagger-ui: sh api_gateway/web/vendor/upgrade.sh 5.35.0
# Needs npm. What is kept: the two files that the page loads, the licence and the notice, and version.json about them.
set -eu
version=${1:?which version of swagger-ui-dist?}
target=$(cd "$(dirname "$0")" && pwd)/swagger-ui
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
npm pack --silent "swagger-ui-dist@$version" > /dev/null
tar -xzf swagger-ui-dist-*.tgz
mkdir -p "$target"
cd package
cp swagger-ui-bundle.js swagger-ui.css LICENSE NOTICE "$target"
cd "$target"
{
  printf '{\n  "package": "swagger-ui-dist",\n  "version": "%s",\n  "sha256": {\n' "$version"
  printf '    "swagger-ui-bundle.js": "%s",\n' "$(sha256sum swagger-ui-bundle.js | cut -d' ' -f1)"
  printf '    "swagger-ui.css": "%s"\n  }\n}\n' "$(sha256sum swagger-ui.css | cut -d' ' -f1)"
} > version.json
