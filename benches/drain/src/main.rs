//! `drain load` fills the topic of the comparison, `drain drain` reads it and does nothing: the best rate that a job on
//! this machine could reach. `drain pack` and `drain pace` are the load of the latency runs. All print lines of JSON to
//! standard output.

mod drain;
mod load;
mod pace;
mod pack;
mod probes;
mod produce;

/// In C too (feature `override`): librdkafka allocates one operation a message.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "drain drain BROKERS TOPIC
drain load BROKERS TOPIC RECORDS < readings.jsonl
drain pack FILE PARTITIONS RECORDS < readings.jsonl
drain pace BROKERS TOPIC SCORES FILE RATE PROBES WARM SECONDS TAIL";

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that fits"))
}

fn run(args: &[&str]) -> Result<(), String> {
    match *args {
        ["drain", brokers, topic] => drain::drain(brokers, topic),
        ["load", brokers, topic, records] => load::load(brokers, topic, number(records)?),
        ["pack", file, partitions, records] => pack::pack(file, number(partitions)?, number(records)?),
        ["pace", brokers, topic, scores, file, rate, probes, warm, seconds, tail] => pace::pace(&pace::Plan {
            brokers,
            topic,
            scores,
            file,
            rate: number(rate)?,
            probes: number(probes)?,
            warm: number(warm)?,
            seconds: number(seconds)?,
            tail: number(tail)?,
        }),
        _ => Err(USAGE.into()),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Err(problem) = run(&args) {
        eprintln!("drain: {problem}");
        std::process::exit(1);
    }
}
