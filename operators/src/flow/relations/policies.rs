//! Which policies may govern the trips of a fleet.

use super::tree::Tree;
use super::{Problem, refusal};
use crate::config::KernelConfig;
use crate::flow::Rows;
use crate::score::ResolvedPolicy;
use crate::score::trips::{EVERYBODY, Page};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::control::Document;
use drivetrain_schemas::policy::Status;
use std::sync::Arc;

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

/// For each fleet that policies have in their scope, itself or above it, the candidates; and for all others, as that of
/// `None`, the policies for everybody. In their order, nearest first.
pub(super) fn pages<'scope>(
    policies: Rows<'scope, Arc<ResolvedPolicy>>,
    tree: &Tree<'scope>,
) -> Rows<'scope, (Option<Arc<str>>, Page)> {
    let policies = policies.filter(|p| p.status != Status::Retired);
    let everybody = policies.clone().filter(|p| p.scope.is_none()).map(|p| ((), p));
    let scoped = policies.flat_map(|p| p.scope.clone().map(|scope| (scope, p)));
    let own = scoped.clone().map(|(fleet, p)| (Some(fleet), (0, p)));
    let below = tree.ancestors.clone().map(|(fleet, (above, distance))| (above, (fleet, distance)));
    let inherited =
        scoped.join_map(below, |_, policy, (fleet, distance)| (Some(fleet.clone()), (*distance, policy.clone())));
    let near = own.concat(inherited);
    let fleets = near.clone().map(|(fleet, _)| fleet).concat(everybody.clone().map(|_| None)).distinct();
    let general =
        fleets.map(|fleet| ((), fleet)).join_map(everybody, |_, fleet, p| (fleet.clone(), (EVERYBODY, p.clone())));
    near.concat(general).reduce_named("pages", |_fleet, candidates, output| {
        output.push((candidates.iter().map(|(candidate, _)| (*candidate).clone()).collect(), 1));
    })
}
