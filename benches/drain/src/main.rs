//! `drain load` fills the topic of the comparison, `drain drain` reads it and does nothing: the best rate that a job on
//! this machine could reach. Both print one line of JSON to standard output.

mod drain;
mod load;

/// In C too (feature `override`): librdkafka allocates one operation a message.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["drain", brokers, topic] => drain::drain(brokers, topic),
        ["load", brokers, topic, records] => match records.parse() {
            Ok(records) => load::load(brokers, topic, records),
            Err(_) => Err(format!("{records:?} is not a number of records")),
        },
        _ => Err("drain drain BROKERS TOPIC | drain load BROKERS TOPIC RECORDS < readings.jsonl".into()),
    };
    if let Err(problem) = done {
        eprintln!("drain: {problem}");
        std::process::exit(1);
    }
}
