#!/usr/bin/env bash
# Usage: scripts/bench-gateway.sh [SECONDS]
# Measures this server as a gateway, in one run and on one machine: a mock model asked directly, through nginx as a plain proxy,
# and through this server with everything on (keys, limits, budgets, sessions, records, logs, a database on disk). Prints ratios.
# Each round takes SECONDS (10); needs wrk and nginx. PROFILE is how the server is built, `production` if nothing else is said.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-10}
connections=${CONNECTIONS:-64}
rounds=${ROUNDS:-3}
for tool in wrk nginx; do
  command -v "$tool" >/dev/null || { echo "${0##*/}: $tool is missing; on Debian: apt-get install wrk nginx-light" >&2; exit 2; }
done
profile=${PROFILE:-production}
cargo build --profile "$profile" --quiet -p enigma-server -p enigma-bench
binaries=$PWD/${CARGO_TARGET_DIR:-target}/$profile

work=$(mktemp -d)
pids=()
cleanup() {
  ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
# 10,000 streams are 20,000 connections of the server.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

# Waits for the first line of a program's output, and prints what comes after "http://" in it.
address_in() {
  for _ in $(seq 200); do
    if grep -qs '://' "$1"; then sed -n '1s#.*://\([^/]*\).*#\1#p' "$1"; return; fi
    sleep 0.02
  done
  echo "${0##*/}: nothing listens: $(cat "$1")" >&2
  exit 1
}

"$binaries/upstream" >"$work/upstream.out" &
pids+=($!)
upstream=$(address_in "$work/upstream.out")
"$binaries/upstream" --gap-ms 1000 --pieces 600 >"$work/slow.out" &
pids+=($!)
slow=$(address_in "$work/slow.out")

# nginx cannot be told to pick a port and say which.
proxy=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/nginx.conf" <<NGINX
worker_processes auto;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 20000; }
http {
  access_log off;
  client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;
  keepalive_requests 100000000;
  upstream model { server $upstream; keepalive 256; keepalive_requests 100000000; }
  server {
    listen $proxy;
    location / { proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
NGINX
nginx -p "$work" -e "$work/nginx.log" -c "$work/nginx.conf" -g 'daemon off;' &
pids+=($!)

key=bench-key-of-the-only-tenant
mkdir -p "$work/tenants/bench"
cat >"$work/tenants/bench/tenant.config.json" <<JSON
{ "tenantId": "bench", "aiModels": { "chat": "mock" },
  "apiKeys": ["sha256:$(printf %s "$key" | sha256sum | cut -d' ' -f1)"],
  "rateLimit": { "perMinute": 1000000, "burst": 1000000, "tenant": { "perMinute": 1000000, "burst": 1000000 } },
  "tokenBudget": { "daily": 1000000000000, "monthly": 10000000000000 },
  "concurrency": { "maxStreams": 20000 } }
JSON
cat >"$work/enigma.toml" <<TOML
[server]
listen = "127.0.0.1:0"
max_connections = 20000
[tenants]
directory = "$work/tenants"
[storage]
database = "$work/enigma.db"
[[providers]]
id = "mock"
base_url = "http://$upstream/v1"
models = { "mock" = "mock" }
[[providers]]
id = "slow"
base_url = "http://$slow/v1"
models = { "slow" = "slow" }
${EXTRA_CONFIG:-}
TOML
# Starts the server with nothing in its database.
serve() {
  rm -f "$work"/enigma.db* "$work/server.out"
  started=$(date +%s%N)
  "$binaries/enigma-server" --config "$work/enigma.toml" >"$work/server.out" 2>"$work/server.log" &
  server=$!
  pids+=("$server")
  served=$(address_in "$work/server.out")
  ready_ms=$((($(date +%s%N) - started) / 1000000))
}
serve
idle_kb=$(awk '/^VmRSS/ { print $2 }' "/proc/$server/status")

whole='{"model":"mock","messages":[{"role":"user","content":"What is the capital of France?"}]}'
streamed='{"model":"mock","stream":true,"messages":[{"role":"user","content":"What is the capital of France?"}]}'
cat >"$work/post.lua" <<LUA
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["x-api-key"] = "$key"
LUA
for name in whole streamed; do
  { cat "$work/post.lua"; printf 'wrk.body = [==[%s]==]\n' "${!name}"; } >"$work/$name.lua"
done
# A session for each thread's next thousand requests, so that turns of one session seldom wait for each other.
cat "$work/post.lua" - >"$work/chat.lua" <<'LUA'
local number = 0
local thread = 0
local threads = 0
function setup(it) it:set("thread", threads); threads = threads + 1 end
function request()
  number = number + 1
  local body = string.format('{"sessionId":"00000000-0000-4000-8%03x-%012x","stream":false,"message":"What is the capital of France?"}', thread, number % 4096)
  return wrk.format("POST", nil, nil, body)
end
LUA

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
# Requests per second of a script against an address and a path.
round() {
  wrk -t2 "-c$connections" "-d${seconds}s" -s "$work/$1.lua" "http://$2$3" >"$work/wrk.out"
  if grep -q 'Non-2xx' "$work/wrk.out"; then cat "$work/wrk.out" >&2; tail -3 "$work/server.log" >&2; exit 1; fi
  awk '/^Requests\/sec/ { printf "%d", $2 }' "$work/wrk.out"
}
median() { sort -n | awk '{ at[NR] = $1 } END { print at[int((NR + 1) / 2)] }'; }

# Warms everything up.
seconds_before=$seconds; seconds=1
for name in whole streamed; do round $name "$served" /v1/chat/completions >/dev/null; done
seconds=$seconds_before

declare -A rates
measure() {
  local before after rate
  before=$(ticks "$server")
  rate=$(round "$2" "$3" "$4")
  after=$(ticks "$server")
  rates[$1]+="$rate "
  printf '%-28s %7d requests/s' "$1" "$rate"
  if ((after > before + 10)); then printf '   %4d us of CPU a request' "$(((after - before) * 10000 / (rate * seconds)))"; fi
  printf '\n'
}
for ((number = 0; number < rounds; number++)); do
  measure 'direct' whole "$upstream" /v1/chat/completions
  measure 'nginx' whole "$proxy" /v1/chat/completions
  measure 'enigma /v1' whole "$served" /v1/chat/completions
  measure 'nginx, streamed' streamed "$proxy" /v1/chat/completions
  measure 'enigma /v1, streamed' streamed "$served" /v1/chat/completions
  measure 'enigma /chat' chat "$served" /chat
done
ratio() {
  local of to
  of=$(tr ' ' '\n' <<<"${rates[$1]}" | grep . | median)
  to=$(tr ' ' '\n' <<<"${rates[$2]}" | grep . | median)
  awk -v of="$of" -v to="$to" -v name="$1 / $2" 'BEGIN { printf "%-40s %.2f\n", name, of / to }'
}
echo "medians of $rounds rounds:"
ratio 'nginx' 'direct'
ratio 'enigma /v1' 'nginx'
ratio 'enigma /v1, streamed' 'nginx, streamed'
ratio 'enigma /chat' 'nginx'

echo 'at 1,000 requests/s:'
for target in "direct $upstream" "nginx $proxy" "enigma $served"; do
  printf '%-10s' "${target% *}"
  "$binaries/load" rate --address "${target#* }" --key "$key" --body "$whole" --seconds "$seconds"
done

# Anew, since memory that the rounds have used is not all given back.
kill "$server"
wait "$server" || true
serve
echo 'open streams:'
memory() { awk '/^VmRSS/ { print $2 }' "/proc/$server/status"; }
for count in 1000 10000; do
  before=$(memory)
  mkfifo "$work/hold$count"
  "$binaries/load" streams --address "$served" --key "$key" --count "$count" \
    --body '{"model":"slow","stream":true,"max_tokens":700,"messages":[{"role":"user","content":"Hello"}]}' <"$work/hold$count" >"$work/hold$count.out" &
  holder=$!
  exec 3>"$work/hold$count"
  until grep -q streams "$work/hold$count.out"; do sleep 0.1; done
  printf '%s, server %d MB before, %d MB with them\n' "$(cat "$work/hold$count.out")" "$((before / 1024))" "$(($(memory) / 1024))"
  echo >&3
  exec 3>&-
  wait "$holder" || true
  sleep 2
done
printf 'ready after %d ms, idle %d MB\n' "$ready_ms" "$((idle_kb / 1024))"
