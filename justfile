# Shortcuts. Nothing needs `just`: each recipe is one command that can be typed.

wasm := "--target wasm32-unknown-unknown"

# List the recipes
default:
    @just --list

# Everything a change has to pass
ci:
    .ci/run

# Unit, integration and doc tests
test:
    cargo test --workspace --all-features

# Run so many simulated worlds; `ENIGMA_SIM_SEED=1 just simulate` replays one
simulate RUNS="10000":
    ENIGMA_SIM_RUNS={{ RUNS }} cargo test -p enigma-simulation --test seeds -- --nocapture

# Format the code
fmt:
    cargo fmt --all

# Lint all targets
clippy:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# Build the API documentation, without that of the dependencies
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

# Check what has to compile for the Worker
wasm:
    scripts/wasm-target.sh
    cargo clippy -p enigma-core -p enigma-http {{ wasm }} -- -D warnings
    cargo clippy -p enigma-openai --no-default-features {{ wasm }} -- -D warnings
    cargo clippy -p enigma-cloudflare -p enigma-worker -p enigma-test-worker {{ wasm }} -- -D warnings

# Check the dependency tree: licences, bans, sources, advisories
deny:
    scripts/deny.sh

# Run the benchmarks
bench:
    cargo bench --workspace

# Measure the server as a gateway beside nginx; needs wrk and nginx
bench-gateway *SECONDS:
    scripts/bench-gateway.sh {{ SECONDS }}

# Measure the decisions that every request takes
bench-core:
    cargo bench -p enigma-core --bench decisions

# Measure retrieval from the database: 100,000 chunks in one tenant's index among ten
bench-search *CHUNKS:
    cargo run --release -p enigma-sqlite --example bench_search -- {{ CHUNKS }}

# Tell how well search finds what it should, over the judged corpus, with the on-device embedder
eval-retrieval:
    cargo test -p enigma-conformance --test quality -- --nocapture

# Run the server for ten minutes at half of its peak: memory flat, no file left open
soak:
    ENIGMA_SOAK_SECONDS=600 cargo test --release -p enigma-conformance --test soak -- --nocapture

# Fuzz every target for two minutes; `just fuzz --seconds 600 tenant_config` is one for ten
fuzz *OPTIONS:
    scripts/fuzz.sh {{ OPTIONS }}

# Start the server with a demo tenant
demo:
    cargo run --release -p enigma-server -- --demo

# Fetch the on-device model
pull:
    cargo run --release -p enigma -- models pull

# Build the Worker, and print its size
worker-build:
    scripts/worker-build.sh

# Run the Worker in workerd on this machine; `just worker-dev --help` lists what can be set
worker-dev *OPTIONS:
    scripts/worker-dev.sh {{ OPTIONS }}

# Check what wrangler would deploy, for every environment; needs no account
worker-dry-run:
    scripts/worker-dry-run.sh

# Measure the built Worker in workerd
bench-worker: worker-build
    node apps/worker/local/bench.mjs
