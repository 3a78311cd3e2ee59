//! Which policy governs a trip, and what it then scores.

use super::tree::Tree;
use super::{Problem, Scored, refusal};
use crate::config::KernelConfig;
use crate::facts::TripFact;
use crate::flow::Rows;
use crate::score::{ResolvedPolicy, score as score_trip};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::control::Document;
use drivetrain_schemas::policy::Status;
use std::cmp::Reverse;
use std::sync::Arc;

/// A policy as seen from a fleet: how far up its scope is ([`EVERYBODY`] without a scope).
type Candidate = (u32, Arc<ResolvedPolicy>);

const EVERYBODY: u32 = u32::MAX;

/// The policies that can be used, and the problems of those that can't: a policy that would count wrongly governs
/// nothing.
pub(super) fn policies<'scope>(
    documents: Rows<'scope, Document>,
    catalogue: Arc<Catalogue>,
    config: Arc<KernelConfig>,
) -> (Rows<'scope, Arc<ResolvedPolicy>>, Rows<'scope, Problem>) {
    let resolved = documents.flat_map(move |document| match document {
        Document::Policy(policy) => {
            let resolved = ResolvedPolicy::new(&policy, &catalogue, &config.trip.harsh).map(Arc::new);
            Some(resolved.map_err(|error| refusal(&policy.policy_id, policy.version, &error)))
        }
        _ => None,
    });
    (resolved.clone().flat_map(|r| r.ok()), resolved.flat_map(|r| r.err()))
}

/// Scores each trip under the active policy that governs it, and under every shadow policy besides.
pub(super) fn score<'scope>(
    trips: Rows<'scope, (Option<Arc<str>>, Arc<TripFact>)>,
    policies: Rows<'scope, Arc<ResolvedPolicy>>,
    tree: &Tree<'scope>,
) -> Rows<'scope, Scored> {
    let seen = trips.clone().map(|(fleet, _)| fleet).distinct();
    let book = book(seen, policies.filter(|p| p.status != Status::Retired), tree);
    trips.join_map(book, |fleet, trip, book| judge(fleet, trip, book)).flat_map(|scored| scored)
}

/// For each fleet that trips name (and for trips without one), the candidates, nearest first.
fn book<'scope>(
    seen: Rows<'scope, Option<Arc<str>>>,
    policies: Rows<'scope, Arc<ResolvedPolicy>>,
    tree: &Tree<'scope>,
) -> Rows<'scope, (Option<Arc<str>>, Vec<Candidate>)> {
    let everybody = policies.clone().filter(|p| p.scope.is_none()).map(|p| ((), p));
    let scoped = policies.flat_map(|p| p.scope.clone().map(|scope| (scope, p)));
    let own = scoped.clone().map(|(fleet, p)| (Some(fleet), Some((0, p))));
    let below = tree.ancestors.clone().map(|(fleet, (above, distance))| (above, (fleet, distance)));
    let inherited =
        scoped.join_map(below, |_, policy, (fleet, distance)| (Some(fleet.clone()), Some((*distance, policy.clone()))));
    let general = seen
        .clone()
        .map(|fleet| ((), fleet))
        .join_map(everybody, |_, fleet, policy| (fleet.clone(), Some((EVERYBODY, policy.clone()))));
    // A fleet without any policy still has a (then empty) page, so that its trips are PENDING and not missing.
    let blank = seen.map(|fleet| (fleet, None));
    blank.concat(own).concat(inherited).concat(general).reduce_named("book", |_fleet, candidates, output| {
        let page: Vec<Candidate> = candidates.iter().filter_map(|(c, _)| (*c).clone()).collect();
        output.push((page, 1));
    })
}

/// The nearest active policy that is valid at the trip's start (ties: the latest valid_from, the highest version, the
/// smallest id), and each shadow policy's nearest version likewise.
fn judge(fleet: &Option<Arc<str>>, trip: &Arc<TripFact>, book: &[Candidate]) -> Vec<Scored> {
    let rank = |c: &&Candidate| (c.0, Reverse(c.1.valid_from), Reverse(c.1.version), c.1.policy_id.clone());
    let valid = |c: &&Candidate| c.1.valid_from <= trip.started_at && trip.started_at < c.1.valid_to;
    let scored = |policy: &Arc<ResolvedPolicy>| Scored {
        fact: trip.clone(),
        fleet: fleet.clone(),
        score: Some((policy.clone(), score_trip(policy, trip))),
    };
    let active = book.iter().filter(|c| c.1.status == Status::Active).filter(valid).min_by_key(rank);
    let mut result = match active {
        Some((_, policy)) => vec![scored(policy)],
        None => vec![Scored { fact: trip.clone(), fleet: fleet.clone(), score: None }],
    };
    let mut shadows: Vec<_> = book.iter().filter(|c| c.1.status == Status::Shadow).filter(valid).collect();
    shadows.sort_by_key(|c| (c.1.policy_id.clone(), rank(c)));
    shadows.dedup_by_key(|c| c.1.policy_id.clone());
    result.extend(shadows.into_iter().map(|(_, policy)| scored(policy)));
    result
}
