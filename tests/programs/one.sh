#!/usr/bin/env bash
# Runs one case in the current directory; started by run.sh, which sets TIDEPROG_*.
set -euo pipefail
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export inputs=$kit/inputs
source "$kit/harness.sh"
define() { :; }
for file in "$kit"/cases/*.sh; do
    # shellcheck source=/dev/null
    source "$file"
done
"case_$1"
