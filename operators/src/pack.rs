//! Values as bytes, for checkpoints: postcard's form, which is stable, compact and without names, so that a change of
//! a type must change the checkpoint's format version.

use serde::{Deserialize, Serialize};

/// Appends a value's bytes.
pub(crate) fn pack<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let taken = std::mem::take(out);
    // Writing to memory does not fail; the types have no untagged or unsized parts.
    *out = postcard::to_extend(value, taken).unwrap_or_default();
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
