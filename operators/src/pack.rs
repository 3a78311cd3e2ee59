//! Values as bytes, for checkpoints: postcard's form, which is stable, compact and without names, so that a change of
//! a type must change the checkpoint's format version.

use drivetrain_schemas::records::Records;
use serde::{Deserialize, Serialize};

/// Appends a value's bytes.
pub(crate) fn pack<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let taken = std::mem::take(out);
    // Writing to memory does not fail; the types have no untagged or unsized parts.
    *out = postcard::to_extend(value, taken).unwrap_or_default();
}

/// Adds up the differences of equal items, forgets those that come to 0, and gives the rest as rows of a checkpoint, each
/// once; `write` appends a row's bytes.
pub(crate) fn sums<T: Ord>(mut changes: Vec<(T, isize)>, write: impl Fn(&T, &mut Vec<u8>)) -> Records {
    add_up(&mut changes);
    let mut records = Records::sum();
    changes.iter().for_each(|(item, diff)| records.add(*diff as i64, |out| write(item, out)));
    records
}

/// Adds up the differences of equal items, and forgets those that come to 0. Sorts.
pub(crate) fn add_up<T: Ord>(changes: &mut Vec<(T, isize)>) {
    changes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    changes.dedup_by(|next, first| {
        let same = next.0 == first.0;
        if same {
            first.1 += next.1;
        }
        same
    });
    changes.retain(|(_, diff)| *diff != 0);
}

/// Reads what [`pack`] wrote.
///
/// # Errors
/// What is wrong with the bytes.
pub(crate) fn unpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    postcard::from_bytes(bytes).map_err(|e| e.to_string())
}

/// Reads a value that [`pack`] wrote, and returns what stands behind it.
///
/// # Errors
/// What is wrong with the bytes.
pub(crate) fn unpack_front<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), String> {
    postcard::take_from_bytes(bytes).map_err(|e| e.to_string())
}
