#!/usr/bin/env bash
# `npm ci`, with a clear word about what is missing. Everything lands under the checkout; no root, no other program.
set -euo pipefail

for tool in git node npm; do
  command -v "$tool" >/dev/null || { echo "setup: $tool is missing; needed are git, make, and Node 18 or newer with npm" >&2; exit 1; }
done
node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)' ||
  { echo "setup: Node $(node -v) is too old: 18 or newer installs the rest (Node 24 comes with the packages)" >&2; exit 1; }

install=(npm ci --loglevel=error --no-fund --no-audit)
# npm leaves out, without a word, every optional package whose `engines` the running Node does not meet, and native parts of the
# tools are such packages. So under an older Node the workspace that brings Node 24 comes first, and Node 24 runs the install.
if ! node -e 'process.exit(parseInt(process.versions.node) >= 24 ? 0 : 1)'; then
  "${install[@]}" --workspace tools/node24 --include-workspace-root=false --ignore-scripts </dev/null >/dev/null
  newer=$(mktemp -d)
  trap 'rm -rf "$newer"' EXIT
  cp node_modules/node-*/bin/node "$newer/" 2>/dev/null || true
  NODE_NO_WARNINGS=1 PATH=$newer:$PATH "${install[@]}" </dev/null
else
  "${install[@]}" </dev/null
fi
[ -x node_modules/.bin/node ] || node -e 'process.exit(parseInt(process.versions.node) >= 24 ? 0 : 1)' ||
  { echo "setup: there is no Node 24 package for this platform: install Node 24.15 or newer" >&2; exit 1; }
