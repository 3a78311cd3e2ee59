//! Asking for memory before it is needed.

/// Says that the value will be read soon, so that whoever reads it need not wait. A hint: it changes nothing.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    const LINE: usize = 64;
    let at = std::ptr::from_ref(value).cast::<u8>();
    for line in 0..size_of::<T>().div_ceil(LINE).min(4) {
        line_at(at.wrapping_add(line * LINE));
    }
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
