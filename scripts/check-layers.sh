#!/usr/bin/env bash
# The layer rule: a file in src/<layer>/ includes headers of its own or a lower layer, as "layer/file.h". Only keeper
# and api include tidemalloc.h, and only src/tidemalloc.c includes .c files. Prints every line that breaks the rule.
#   scripts/check-layers.sh [SRC]
set -euo pipefail
cd "${1:-$(dirname "$0")/../src}"

find . -mindepth 2 -type f -name '*.[ch]' -print0 | sort -z | xargs -0 --no-run-if-empty awk '
    BEGIN {
        count = split("base os span tier heap keeper api", order, " ")
        for (i = 1; i <= count; i++) rank[order[i]] = i
    }
    function report(why) {
        printf "src/%s:%d: %s: %s\n", file, FNR, why, $0
        broken++
    }
    FNR == 1 {
        files++
        file = substr(FILENAME, 3)
        layer = substr(file, 1, index(file, "/") - 1)
        if (!(layer in rank)) report("folder \"" layer "\" is no layer")
    }
    /^[ \t]*#[ \t]*include[ \t]*[<"]/ && layer in rank {
        match($0, /[<"][^>"]*[>"]/)
        quoted = substr($0, RSTART, 1) == "\""
        name = substr($0, RSTART + 1, RLENGTH - 2)
        slash = index(name, "/")
        target = substr(name, 1, slash - 1)
        if (name ~ /(^|\/)\.\.?\//)
            report("write the path from src, without dots")
        else if (name ~ /(^|\/)tidemalloc\.h$/) {
            if (rank[layer] < rank["keeper"]) report("only keeper and api include tidemalloc.h")
        } else if (name ~ /\.c$/)
            report("only src/tidemalloc.c includes .c files")
        else if (target in rank) {
            if (rank[target] > rank[layer]) report(layer " is below " target)
        } else if (quoted)
            report("write \"layer/file.h\" for our headers and <...> for the others")
    }
    END {
        if (broken) {
            printf "layer rule: %d broken\n", broken
            exit 1
        }
        printf "layer rule: %d files, all includes point down\n", files
    }'
