//! Two queries, compared row by row.

use crate::support::{one, sql};
use std::path::Path;

/// `select … union all select …`: rows of text, with null for the empty text.
pub fn rows(names: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |(name, value): (&&str, &String)| match value.as_str() {
        "" => format!("cast(null as varchar) as {name}"),
        _ => format!("'{value}' as {name}"),
    };
    let row = |r: &Vec<String>| format!("select {}", names.iter().zip(r).map(cell).collect::<Vec<_>>().join(", "));
    rows.iter().map(row).collect::<Vec<_>>().join(" union all ")
}

/// Both queries give the same set of keys, once each, and `same` holds of every pair of rows (`c` computed, `s` stored).
/// Returns how many rows there are.
#[track_caller]
pub fn agree(data: &Path, what: &str, keys: &[&str], [computed, stored]: [&str; 2], same: &[String]) -> usize {
    let on = keys.iter().map(|k| format!("c.{k} = s.{k}")).collect::<Vec<_>>().join(" and ");
    let first = keys[0];
    let same = same.iter().map(|s| format!("({s})")).collect::<Vec<_>>().join(" and ");
    let with = format!("with c as ({computed}), s as ({stored})");
    let counts = one(
        data,
        &format!(
            "{with} select (select count(*) from c) as c, (select count(*) from s) as s, count(*), \
             coalesce(sum(case when c.{first} is not null and s.{first} is not null and {same} then 1 else 0 end), 0) \
             from c full join s on {on}"
        ),
    );
    let counts: Vec<usize> = counts.split(',').map(|n| n.parse().unwrap()).collect();
    let differing = || {
        let failed = format!("not coalesce(c.{first} is not null and s.{first} is not null and {same}, false)");
        sql(
            data,
            &format!("{with} select c.*, 'stored' as stored, s.* from c full join s on {on} where {failed} limit 5"),
        )
    };
    assert!(counts[0] > 0, "{what}: nothing was computed, so this shows nothing");
    assert!(
        counts.iter().all(|n| *n == counts[0]),
        "{what}: [computed, stored, joined, equal] rows are {counts:?}; the first that differ:\n{}",
        differing().join("\n")
    );
    counts[0]
}

/// Equal, null being equal to null.
pub fn equal(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|c| format!("c.{c} is not distinct from s.{c}")).collect()
}

/// Equal up to a part of the larger, or up to `least`.
pub fn near(column: &str, relative: f64, least: f64) -> String {
    format!("abs(c.{column} - s.{column}) <= greatest({least:e}, {relative:e} * abs(c.{column}))")
}
