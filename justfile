# Everyday commands; `just` lists them.
default:
    @just --list

# What CI runs.
ci:
    bash .ci/run

# All tests, with a real Kafka (Java and Maven needed).
test:
    DRIVETRAIN_REQUIRE_KAFKA=1 cargo test

# Formatting and lints as CI wants them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# The simulated fleet through the whole graph, for half a minute.
demo:
    cargo run --release -- demo --for 30s

# Each kernel by itself (criterion); `just kernels decode` for some of them.
kernels *FILTER:
    cargo bench --manifest-path benches/kernels/Cargo.toml -- {{FILTER}}

# This machine: decoding, kernels and the whole job, in about a minute.
bench *ARGS:
    cargo run --release -- bench {{ARGS}}

# drivetrain against Flink and Kafka Streams on the same job: table, JSON, chart (Java, Maven, confluent-kafka for Python).
compare *ARGS:
    cargo build --release
    python3 benches/compare --drivetrain "${CARGO_TARGET_DIR:-target}/release/drivetrain" {{ARGS}}

# Latency of drivetrain and of Flink at shares of the sustainable rate (as `compare`, and hdrhistogram for Python).
latency *ARGS:
    cargo build --release
    python3 benches/compare/latency.py --drivetrain "${CARGO_TARGET_DIR:-target}/release/drivetrain" {{ARGS}}

# Growth by vehicles, workers and readings: tables and curves (half an hour and more; Java, Maven, confluent-kafka for Python).
growth *ARGS:
    cargo build --release
    python3 benches/growth "${CARGO_TARGET_DIR:-target}/release/drivetrain" {{ARGS}}
