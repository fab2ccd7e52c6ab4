#!/usr/bin/env bash
# `npm ci`, with a clear word about what is missing. Everything lands under the checkout; no root, no other program.
set -euo pipefail

for tool in git node npm; do
  command -v "$tool" >/dev/null || { echo "setup: $tool is missing; needed are git, make, and Node 18 or newer with npm" >&2; exit 1; }
done
node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)' ||
  { echo "setup: Node $(node -v) is too old: 18 or newer installs the rest (Node 24 comes with the packages)" >&2; exit 1; }

npm ci --loglevel=error --no-fund --no-audit </dev/null
[ -x node_modules/.bin/node ] || node -e 'process.exit(parseInt(process.versions.node) >= 24 ? 0 : 1)' ||
  { echo "setup: there is no Node 24 package for this platform: install Node 24.15 or newer" >&2; exit 1; }
