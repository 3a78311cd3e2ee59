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
