# Servers, each only on a unix socket in the case's directory.
# shellcheck shell=bash disable=SC2154,SC2317 # $inputs and $server come from outside

redis_start() {
    start redis-server --port 0 --unixsocket "$PWD/redis.sock" --dir "$PWD" --save '' --enable-debug-command yes "$@"
    until_true redis-cli -s redis.sock ping
    mapped "$server"
}
redis_stop() {
    redis-cli -s redis.sock shutdown nosave || true
    ended "$server"
}

define redis_session quick "redis-server redis-cli" "redis-server redis-tools"
case_redis_session() {
    prove redis-server --version
    prove redis-cli --version
    redis_start --appendonly yes --auto-aof-rewrite-percentage 0
    under redis-cli -s redis.sock <"$inputs/session.redis"
    # A child writes the whole data set while the parent goes on: fork with a big heap.
    redis-cli -s redis.sock bgsave >/dev/null
    redis-cli -s redis.sock eval 'for i = 1, 3000 do redis.call("set", "during:" .. i, string.rep("d", i % 700)) end return "written"' 0
    until_true sh -c 'redis-cli -s redis.sock info persistence | grep -q "^rdb_bgsave_in_progress:0"'
    redis-cli -s redis.sock info persistence | grep '^rdb_last_bgsave_status'
    redis-cli -s redis.sock bgrewriteaof >/dev/null
    until_true sh -c 'redis-cli -s redis.sock info persistence | grep -q "^aof_rewrite_in_progress:0"'
    redis-cli -s redis.sock info persistence | grep '^aof_last_bgrewrite_status'
    redis-cli -s redis.sock debug digest >before
    redis-cli -s redis.sock debug reload
    redis-cli -s redis.sock debug digest >after
    cat before after
    redis-cli -s redis.sock dbsize
    redis_stop
}

define redis_load quick "redis-server redis-cli redis-benchmark" "redis-server redis-tools"
case_redis_load() {
    prove redis-server --version
    prove redis-benchmark --version
    redis_start --io-threads 2 --io-threads-do-reads yes
    local requests
    requests=$(by_mode 6000 60000)
    under redis-benchmark -s redis.sock -n "$requests" -c 20 -P 8 -d 300 --threads 2 -q \
        -t set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,lrange_100,mset | tr '\r' '\n' |
        sed -n 's/^\(.*\): [0-9.]* requests per second.*/\1/p'
    redis-cli -s redis.sock dbsize
    redis-cli -s redis.sock llen mylist
    redis-cli -s redis.sock strlen key:__rand_int__
    redis-cli -s redis.sock info errorstats
    redis-cli -s redis.sock flushall async
    redis_stop
}

memcached_start() {
    start memcached -s "$PWD/memcached.sock" -u "$(id -un)" "$@"
    until_true test -S memcached.sock
    mapped "$server"
}
memcached_stop() {
    kill -TERM "$server"
    ended "$server"
}

define memcached_session quick "memcached python3" "memcached python3"
case_memcached_session() {
    prove memcached --version
    memcached_start -m 64
    python3 "$inputs/memcached.py" session memcached.sock
    memcached_stop
}

define memcached_load quick "memcached python3" "memcached python3"
case_memcached_load() {
    prove memcached --version
    memcached_start -t 4 -m 32 -I 4m
    python3 "$inputs/memcached.py" load memcached.sock "$(by_mode 3000 40000)"
    memcached_stop
}

define nginx quick "nginx curl" "nginx-light curl"
case_nginx() {
    prove nginx -v
    prove curl --version
    local i master worker
    mkdir pages
    for i in $(seq 60); do seq -f "page $i line %.0f" $((i * i * 7)) >"pages/$i.txt"; done
    head -c 3000000 /dev/zero | tr '\0' 'n' >pages/big.txt
    sed "s|@USER@|$(id -un) $(id -gn)|" "$inputs/nginx.conf" >nginx.conf
    start nginx -p "$PWD/" -c nginx.conf -e error.log
    master=$server
    until_true curl -sf --unix-socket nginx.sock http://localhost/1.txt
    mapped "$master"
    for worker in $(pgrep -P "$master"); do mapped "$worker"; done

    get() { under curl -s --unix-socket nginx.sock "$@" | sha256sum; }
    for i in 1 7 33 60 big; do get "http://localhost/$i.txt"; done
    get --compressed http://localhost/55.txt
    get -r 1000-200000 http://localhost/big.txt
    get http://localhost/included.shtml
    under curl -s -o /dev/null -w '%{http_code} %{size_download}\n' --unix-socket nginx.sock \
        http://localhost/absent http://localhost/moved http://localhost/upload http://localhost/replaced/7.txt
    load() {
        local client
        for client in 1 2 3; do
                under curl -s -Z --parallel-max 8 --compressed --unix-socket nginx.sock -o "got.$client.#1.#2" \
                "http://localhost/[1-60].txt?turn=[1-$(by_mode 5 25)]" &
            clients+=($!)
        done
    }
    local clients=()
    load
    # New workers take over while requests run.
    kill -HUP "$master"
    for worker in "${clients[@]}"; do wait "$worker"; done
    cat got.* | sha256sum
    until_true sh -c "! pgrep -P $master -f 'shutting down'"
    [[ $(pgrep -c -P "$master") == 3 ]]
    for worker in $(pgrep -P "$master"); do mapped "$worker"; done
    get http://localhost/33.txt
    kill -QUIT "$master"
    ended "$master"
    grep -cE '\[(alert|emerg|crit)\]' error.log || true
}

define postgres quick "postgres initdb pg_ctl createdb psql pgbench pg_dump" "postgresql-15 postgresql-client-15"
case_postgres() {
    prove postgres --version
    prove psql --version
    prove pgbench --version
    export PGHOST=$PWD PGUSER=tide PGDATA=$PWD/data
    on_exit() { pg_ctl stop -m immediate >/dev/null 2>&1 || true; }
    under initdb --no-sync -A trust -U tide -E UTF8 --locale=C >/dev/null
    under pg_ctl start -w -s -l postgres.log \
        -o "-c listen_addresses='' -k '$PWD' -c fsync=off -c shared_buffers=32MB -c max_parallel_workers_per_gather=2 -c min_parallel_table_scan_size=0 -c parallel_setup_cost=0 -c jit=off"
    mapped "$(head -1 data/postmaster.pid)"
    createdb test
    mapped "$(psql -qAt test -c "select pid from pg_stat_activity where backend_type = 'checkpointer'")"
    under psql -qAt -v ON_ERROR_STOP=1 test <"$inputs/postgres.sql" 2>&1
    under pgbench -q -i -s 2 test 2>/dev/null
    under pgbench -c 4 -j 2 -t "$(by_mode 200 5000)" test 2>&1 | grep -E 'actually processed|failed transactions|aborted'
    psql -qAt test -c 'select count(*) from pgbench_history' \
        -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
                   (select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches)'
    under pg_dump -t numbers -t words test | grep -vE '^(--|.(un)?restrict )' | sha256sum
    under pg_ctl stop -w -s -m fast
    echo "crashes: $(grep -cE 'terminated by signal|PANIC|server process .* exited' postgres.log || true)"
}
