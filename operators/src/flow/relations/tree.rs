//! Where trips and anomalies belong: the vehicle's fleet at the time, and the fleets above that one.

use super::Problem;
use crate::facts::AnomalyFact;
use crate::flow::Rows;
use crate::score::trips::{Timeline, resolve};
use differential_dataflow::operators::Iterate;
use drivetrain_schemas::control::Document;
use std::sync::Arc;

/// (child, parent) or, transitively, (from, to).
type Edges<'scope> = Rows<'scope, (Arc<str>, Arc<str>)>;
/// (fleet, (ancestor, distance)), distance from 1.
type Ancestors<'scope> = Rows<'scope, (Arc<str>, (Arc<str>, u32))>;

/// The forest of fleets. Edges to unknown parents and edges inside a cycle are cut.
pub(super) struct Tree<'scope> {
    /// Every fleet with a document.
    pub(super) nodes: Rows<'scope, Arc<str>>,
    /// (child, parent), as far as it is not cut.
    pub(super) parents: Edges<'scope>,
    pub(super) ancestors: Ancestors<'scope>,
    unknown: Edges<'scope>,
    cyclic: Edges<'scope>,
}

pub(super) fn tree(documents: Rows<'_, Document>) -> Tree<'_> {
    let fleets = documents.flat_map(|d| match d {
        Document::Fleet(fleet) => Some((fleet.fleet_id, fleet.parent_id)),
        _ => None,
    });
    let nodes = fleets.clone().map(|(fleet, _)| fleet);
    let stated = fleets.flat_map(|(fleet, parent)| parent.map(|p| (p, fleet)));
    let known = stated.clone().semijoin(nodes.clone()).map(|(parent, child)| (child, parent));
    let unknown = stated.antijoin(nodes.clone()).map(|(parent, child)| (child, parent));
    let looping = reach(known.clone()).filter(|(from, to)| from == to).map(|(node, _)| node);
    // A fleet has one parent, so that its edge is in a cycle exactly when it is.
    let parents = known.clone().antijoin(looping.clone());
    let cyclic = known.semijoin(looping);
    Tree { nodes, ancestors: ancestors(parents.clone()), parents, unknown, cyclic }
}

/// All (from, to) along one edge or more.
fn reach<'scope>(edges: Edges<'scope>) -> Edges<'scope> {
    edges.clone().iterate(|scope, reached| {
        let edges = edges.enter(scope);
        let further =
            reached.map(|(from, via)| (via, from)).join_map(edges.clone(), |_, from, to| (from.clone(), to.clone()));
        edges.concat(further).distinct()
    })
}

fn ancestors<'scope>(parents: Edges<'scope>) -> Ancestors<'scope> {
    let direct = parents.clone().map(|(child, parent)| (child, (parent, 1)));
    direct.clone().iterate(|scope, found| {
        let further = found
            .map(|(child, (ancestor, distance))| (ancestor, (child, distance)))
            .join_map(parents.enter(scope), |_, (child, distance), above| {
                (child.clone(), (above.clone(), distance + 1))
            });
        direct.enter(scope).concat(further).distinct()
    })
}

/// What is wrong with fleets and with the vehicles' fleets.
pub(super) fn problems<'scope>(tree: &Tree<'scope>, documents: Rows<'scope, Document>) -> Rows<'scope, Problem> {
    let fleet = |text: &'static str| {
        move |(child, parent): (Arc<str>, Arc<str>)| Problem {
            document: format!("fleets/{child}").into(),
            problem: text.replace("{}", &parent).into(),
        }
    };
    let unknown = tree.unknown.clone().map(fleet("its parent_id {} has no document; it is treated as a root"));
    let cyclic = tree.cyclic.clone().map(fleet("its parent_id {} closes a cycle; the edge is cut"));
    let vehicles = documents
        .flat_map(|d| match d {
            Document::Vehicle(v) => {
                let from = v.effective_from.as_deref().map_or(String::new(), |f| format!("@{f}"));
                v.fleet_id.map(|fleet| (fleet, format!("vehicles/{}{from}", v.vehicle_id)))
            }
            Document::Driver(d) => {
                let from = d.effective_from.as_deref().map_or(String::new(), |f| format!("@{f}"));
                d.fleet_id.map(|fleet| (fleet, format!("drivers/{}{from}", d.driver_id)))
            }
            _ => None,
        })
        .antijoin(tree.nodes.clone())
        .map(|(fleet, document)| Problem {
            document: document.into(),
            problem: format!("its fleet_id {fleet} has no document").into(),
        });
    unknown.concat(cyclic).concat(vehicles)
}

/// Since when each vehicle with documents belongs to which fleet.
pub(super) fn timelines<'scope>(documents: Rows<'scope, Document>) -> Rows<'scope, (Arc<str>, Timeline)> {
    documents
        .flat_map(|d| match d {
            Document::Vehicle(v) => {
                let from = v.effective_from.as_deref().and_then(|f| drivetrain_schemas::time::parse_rfc3339(f).ok());
                Some((v.vehicle_id, (from.unwrap_or(i64::MIN), v.fleet_id)))
            }
            _ => None,
        })
        .reduce_named("timelines", |_vehicle, entries, output| {
            let timeline: Vec<_> = entries.iter().map(|((from, fleet), _)| (*from, fleet.clone())).collect();
            output.push((timeline, 1));
        })
}

/// Open anomalies by fleet, that of the vehicle at their start; those without one are left out.
///
/// An outer join without an antijoin: every one counts with the record's fleet, and where the vehicle has documents
/// that is taken back and the right one put in its place, at the same epoch.
pub(super) fn locate<'scope>(
    anomalies: Rows<'scope, AnomalyFact>,
    timelines: Rows<'scope, (Arc<str>, Timeline)>,
) -> Rows<'scope, (Arc<str>, Arc<AnomalyFact>)> {
    let open = anomalies.map(|a| (a.vehicle.clone(), Arc::new(a)));
    let stated = open.clone().map(|(_, a)| (a.fleet.clone(), a));
    let matched = open.join_map(timelines, |_, anomaly, timeline| {
        (anomaly.clone(), resolve(timeline, anomaly.started_at, &anomaly.fleet))
    });
    let withdrawn = matched.clone().map(|(a, _)| (a.fleet.clone(), a)).negate();
    let resolved = matched.map(|(a, fleet)| (fleet, a));
    let located = stated.concat(withdrawn).concat(resolved).consolidate_stream();
    located.flat_map(|(fleet, anomaly)| fleet.map(|fleet| (fleet, anomaly)))
}
