//! Asking for memory before it is needed.

use std::sync::Arc;

const LINE: usize = 64;

/// Says that the value will be read soon, so that whoever reads it need not wait. A hint: it changes nothing.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let at = std::ptr::from_ref(value).cast::<u8>();
    for line in 0..size_of::<T>().div_ceil(LINE).min(16) {
        line_at(at.wrapping_add(line * LINE));
    }
}

/// The same of a slice: of its first 4 lines.
#[inline(always)]
pub fn prefetch_slice<T>(values: &[T]) {
    let at = values.as_ptr().cast::<u8>();
    for line in 0..size_of_val(values).div_ceil(LINE).min(4) {
        line_at(at.wrapping_add(line * LINE));
    }
}

/// The same of what is counted of a shared value when it is cloned or dropped; the counts stand before the value.
#[inline(always)]
pub fn prefetch_count<T>(shared: &Arc<T>) {
    line_at(Arc::as_ptr(shared).cast::<u8>().wrapping_sub(2 * size_of::<usize>()));
}

/// The same of the place behind a vector's last value, where the next is to be written.
#[inline(always)]
pub fn prefetch_end<T>(values: &[T]) {
    line_at(values.as_ptr_range().end.cast());
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(unsafe_code, reason = "the intrinsic takes a pointer; it reads nothing and may be given any")]
fn line_at(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: prefetching has no effect on memory and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn line_at(_: *const u8) {}
