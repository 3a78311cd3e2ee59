use super::*;
use drivetrain_schemas::control::{ControlKind, Document};

fn with(files: &[(ControlKind, String)]) -> Job {
    let mut job = job(vec![source("s", "")], &[]);
    job.reference.files = files.iter().map(|(kind, path)| (*kind, path.into())).collect();
    job
}

fn keys(outcome: &Outcome) -> Vec<(i64, &str, bool)> {
    outcome.changes.iter().map(|(epoch, c)| (*epoch, &*c.key, c.document.is_some())).collect()
}

#[test]
fn files_are_there_in_epoch_0_and_bad_documents_are_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let vehicles = "{\"vehicle_id\":\"v1\",\"effective_from\":\"2026-01-01T00:00:00Z\"}\n\n{\"vehicle_id\":7}\n{\"vehicle_id\":\"v2\"}\n";
    let vehicles = write(directory.path(), "vehicles.jsonl", vehicles);
    let fleets =
        write(directory.path(), "fleets.json", "[{\"fleet_id\":\"f1\"},\n {\"fleet_id\":\"f2\",\"parent_id\":\"f1\"}]");
    let policy = serde_json::to_string_pretty(&drivetrain_schemas::policy::Policy::fleetflow()).unwrap();
    let policy = write(directory.path(), "policy.json", policy);
    let files = [(ControlKind::Vehicles, vehicles), (ControlKind::Fleets, fleets), (ControlKind::Policies, policy)];
    let outcome = replay(with(&files));
    let expected = ["v1@2026-01-01T00:00:00Z", "v2", "f1", "f2", "fleetflow@1"].map(|k| (0, k, true));
    assert_eq!(keys(&outcome), expected);
    let by_value: Vec<_> = outcome.changes.iter().map(|(_, c)| c.clone()).collect();
    assert_eq!(outcome.tickets[0].control, by_value);
    let [reject] = &outcome.rejects[..] else { panic!("{:?}", outcome.rejects) };
    assert_eq!((&*reject.origin.source, reject.position, &*reject.reason), ("reference", 3, "bad_document"));
    assert_eq!(reject.payload.as_deref(), Some(&b"{\"vehicle_id\":7}"[..]));
}

#[test]
fn a_restart_emits_only_what_differs() {
    let directory = tempfile::tempdir().unwrap();
    let before =
        write(directory.path(), "f.jsonl", "{\"fleet_id\":\"a\"}\n{\"fleet_id\":\"b\"}\n{\"fleet_id\":\"c\"}\n");
    let known = replay(with(&[(ControlKind::Fleets, before)])).tickets[0].control.clone();
    let after = write(directory.path(), "f.jsonl", "{\"fleet_id\":\"c\"}\n{\"fleet_id\":\"a\",\"name\":\"A\"}\n");
    let mut job = with(&[(ControlKind::Fleets, after)]);
    job.resume = Some(Resume { next_epoch: 9, bindings: Vec::new(), control: known, ..Resume::default() });
    job.committed.store(8, Ordering::Relaxed);
    let outcome = replay(job);
    assert_eq!(keys(&outcome), [(9, "a", true), (9, "b", false)]);
    assert!(matches!(&outcome.changes[0].1.document, Some(Document::Fleet(f)) if f.name.as_deref() == Some("A")));
}

/// A restart reads files (and topics) again from their beginning: a document that was refused is not refused twice, but
/// for one that stands at another place or says something else.
#[test]
fn a_rejected_document_is_rejected_once() {
    let directory = tempfile::tempdir().unwrap();
    let fleets = |text: &str| vec![(ControlKind::Fleets, write(directory.path(), "f.jsonl", text))];
    let first = replay(with(&fleets("{\"fleet_id\":\"a\"}\n{\"fleet_id\":7}\n")));
    assert_eq!((first.rejects.len(), &first.tickets[0].rejects), (1, &first.rejects));
    let again = |text: &str| {
        let mut job = with(&fleets(text));
        let control = first.tickets[0].control.clone();
        let rejects = first.rejects.clone();
        job.resume = Some(Resume { next_epoch: 9, control, rejects, ..Resume::default() });
        job.committed.store(8, Ordering::Relaxed);
        replay(job)
    };
    let same = again("{\"fleet_id\":\"a\"}\n{\"fleet_id\":7}\n");
    assert_eq!((same.rejects.len(), same.changes.len()), (0, 0));
    let other = again("{\"fleet_id\":\"a\"}\n{\"fleet_id\":8}\n{\"fleet_id\":7}\n");
    assert_eq!(other.rejects.iter().map(|r| r.position).collect::<Vec<_>>(), [2, 3]);

    // Where it is repeated, it is rejected as it was, in its epoch.
    let mut job = with(&fleets("{}\n"));
    job.plan = Plan { tickets: first.tickets.clone(), go_on: false };
    let repeated = replay(job);
    assert_eq!((repeated.rejects, repeated.tickets), (first.rejects, first.tickets));
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let (_, result) = launch(with(&[(ControlKind::Drivers, "/nowhere/drivers.jsonl".into())])).finish(|_| false);
    assert!(result.unwrap_err().to_string().contains("/nowhere/drivers.jsonl"));
}
