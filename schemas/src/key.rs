//! The hash by which keys are spread over workers and by which state is stored: XXH3-64 of the key's bytes, the
//! same on every machine and in every release.

/// Hash of a key (a vehicle, driver, trip or fleet id).
#[inline]
pub fn hash(key: &str) -> u64 {
    hash_of_bytes(key.as_bytes())
}

/// The same, of a key's bytes.
#[inline]
pub(crate) fn hash_of_bytes(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// A hash for a table, whose low bits choose the place there: those of all keys of one worker may be alike.
#[inline]
pub fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}

/// XXH3-128, to tell contents apart of which only a hash is kept.
pub fn hash128(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}
