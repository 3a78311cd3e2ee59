//! Unpacks what producers have packed, to the end of a buffer that is used again.

use flate2::read::GzDecoder;
use std::io::{self, Write};

/// More than that a batch never unpacks to, unless somebody means harm.
const MOST: usize = 1 << 30;
/// Before raw Snappy, as Java's producer frames it.
const XERIAL: &[u8] = b"\x82SNAPPY\0";

/// Bytes of which the first `used` count; the others are from an earlier use.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
}

impl Buffer {
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    pub(super) fn truncate(&mut self, used: usize) {
        self.used = self.used.min(used);
    }

    /// Bytes that it keeps for its next use.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// What is there, and at least `n` bytes behind it to write to.
    fn split(&mut self, n: usize) -> Result<(&[u8], &mut [u8]), String> {
        let end = self.used.saturating_add(n);
        if end > MOST {
            return Err(format!("it unpacks to more than {MOST} bytes"));
        }
        if self.bytes.len() < end {
            self.bytes.resize(end.max(2 * self.bytes.len()).min(MOST), 0);
        }
        let (there, room) = self.bytes.split_at_mut(self.used);
        Ok((there, room))
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (_, room) = self.split(bytes.len()).map_err(io::Error::other)?;
        room[..bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends what is packed with this codec of Kafka's (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd).
///
/// # Errors
/// What is wrong with it.
pub(super) fn unpack(codec: u8, packed: &[u8], into: &mut Buffer) -> Result<(), String> {
    match codec {
        0 => into.write_all(packed).map_err(|e| e.to_string()),
        1 => io::copy(&mut GzDecoder::new(packed), into).map(drop).map_err(|e| format!("gzip: {e}")),
        2 => snappy(packed, into).map_err(|e| format!("snappy: {e}")),
        3 => lz4(packed, into).map_err(|e| format!("lz4: {e}")),
        4 => zstd::stream::copy_decode(packed, into).map_err(|e| format!("zstd: {e}")),
        other => Err(format!("compression {other} is not known")),
    }
}

fn snappy(packed: &[u8], into: &mut Buffer) -> Result<(), String> {
    let Some(framed) = packed.strip_prefix(XERIAL) else { return raw_snappy(packed, into) };
    let mut rest = framed.get(8..).ok_or("cut off")?;
    while let Some((size, behind)) = rest.split_first_chunk::<4>() {
        let size = u32::from_be_bytes(*size) as usize;
        let (block, behind) = behind.split_at_checked(size).ok_or("cut off")?;
        raw_snappy(block, into)?;
        rest = behind;
    }
    if rest.is_empty() { Ok(()) } else { Err("cut off".into()) }
}

fn raw_snappy(packed: &[u8], into: &mut Buffer) -> Result<(), String> {
    let size = snap::raw::decompress_len(packed).map_err(|e| e.to_string())?;
    let (_, room) = into.split(size)?;
    let n = snap::raw::Decoder::new().decompress(packed, &mut room[..size]).map_err(|e| e.to_string())?;
    into.used += n;
    Ok(())
}

/// LZ4's frame format. Its own checksums are not looked at: the record batch has one over all of it.
fn lz4(packed: &[u8], into: &mut Buffer) -> Result<(), String> {
    const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
    let rest = packed.strip_prefix(&MAGIC).ok_or("no frame begins there")?;
    let (&[flags, sizes], mut rest) = rest.split_first_chunk::<2>().ok_or("cut off")?;
    if flags >> 6 != 1 {
        return Err("a version that is not known".into());
    }
    let [linked, block_sums, sized, dictionary] = [flags & 32 == 0, flags & 16 != 0, flags & 8 != 0, flags & 1 != 0];
    if dictionary {
        return Err("it needs a dictionary".into());
    }
    let most = match sizes >> 4 & 7 {
        code @ 4..=7 => 1usize << (8 + 2 * code),
        _ => return Err("a block size that is not known".into()),
    };
    rest = rest.get(if sized { 9 } else { 1 }..).ok_or("cut off")?;
    let begin = into.used;
    loop {
        let (size, behind) = rest.split_first_chunk::<4>().ok_or("cut off")?;
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            return Ok(());
        }
        let (block, behind) = behind.split_at_checked((size & 0x7fff_ffff) as usize).ok_or("cut off")?;
        rest = behind.get(if block_sums { 4 } else { 0 }..).ok_or("cut off")?;
        if size >> 31 != 0 {
            into.write_all(block).map_err(|e| e.to_string())?;
            continue;
        }
        let (there, room) = into.split(most)?;
        let n = if linked && there.len() > begin {
            let window = there.get(begin.max(there.len().saturating_sub(1 << 16))..).unwrap_or_default();
            lz4_flex::block::decompress_into_with_dict(block, &mut room[..most], window)
        } else {
            lz4_flex::block::decompress_into(block, &mut room[..most])
        };
        into.used += n.map_err(|e| e.to_string())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn xerial(text: &[u8]) -> Vec<u8> {
        let mut out = [XERIAL, &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for part in text.chunks(1000) {
            let packed = snap::raw::Encoder::new().compress_vec(part).unwrap();
            out.extend((packed.len() as u32).to_be_bytes());
            out.extend(packed);
        }
        out
    }

    fn framed(text: &[u8], linked: bool, sums: bool) -> Vec<u8> {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let mode = if linked { BlockMode::Linked } else { BlockMode::Independent };
        let info = FrameInfo::new().block_mode(mode).block_size(BlockSize::Max64KB);
        let info = info.block_checksums(sums).content_checksum(sums);
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn packings(text: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let raw = snap::raw::Encoder::new().compress_vec(text).unwrap();
        let mut all = vec![(0, text.to_vec()), (1, gzip(text)), (2, raw), (2, xerial(text))];
        for (linked, sums) in [(false, false), (true, false), (false, true), (true, true)] {
            all.push((3, framed(text, linked, sums)));
        }
        all.push((4, zstd::encode_all(text, 1).unwrap()));
        all
    }

    #[test]
    fn what_was_packed_comes_out_behind_what_is_there() {
        let long: Vec<u8> =
            (0..40_000u32).flat_map(|n| format!("{} {} ", n % 700, n.wrapping_mul(7919)).into_bytes()).collect();
        assert!(long.len() > 4 << 16, "several blocks");
        let mut buffer = Buffer::default();
        for text in [&long[..], b"", b"a", &long[..70_000]] {
            for (codec, packed) in packings(text) {
                buffer.clear();
                buffer.write_all(b"before").unwrap();
                unpack(codec, &packed, &mut buffer).unwrap();
                assert!(buffer.filled() == [b"before", text].concat(), "codec {codec}, {} bytes", text.len());
            }
        }
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_other_bytes(
            text in prop::collection::vec(0u8..4, 0..300),
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            for (codec, mut packed) in packings(&text) {
                if packed.is_empty() {
                    continue;
                }
                let place = place.index(packed.len());
                if cut { packed.truncate(place) } else { packed[place] = byte }
                let _ = unpack(codec, &packed, &mut Buffer::default());
            }
        }
    }
}
