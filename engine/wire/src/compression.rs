//! The four codecs of Kafka's record batches, over whole blocks of bytes.
//!
//! Decompression grows with the bytes that come out, never by a claimed size, and stops with an
//! error at the caller's limit. Snappy is read in xerial's framing (Java, librdkafka) and raw, and
//! written in xerial's; LZ4 is the frame format with independent blocks, since Kafka's Java decoder
//! takes no others (KIP-57).

use std::fmt;
use std::io::{self, Read, Write};

use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// How a batch's records are compressed (attributes, bits 0 to 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, in the framing of xerial's Java library.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// RFC 8878; KIP-110.
    Zstd,
}

impl Compression {
    /// All codecs, in the order of their ids.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The id in a batch's attributes.
    pub const fn id(self) -> i16 {
        self as i16
    }

    /// The codec of an id, if it is one that Kafka defines.
    pub const fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Kafka's name of it, as in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of a name as in `compression.type`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why compressed bytes could not be read.
#[derive(Debug, Error)]
pub enum DecompressError {
    /// The content would exceed the caller's limit.
    #[error("{codec} data decompresses to more than {limit} bytes")]
    TooLarge {
        /// Whose data it is.
        codec: Compression,
        /// The caller's limit in bytes.
        limit: usize,
    },
    /// The bytes are not what the codec writes.
    #[error("{codec} data is malformed: {cause}")]
    Malformed {
        /// Whose data it should be.
        codec: Compression,
        /// The library's words.
        cause: String,
    },
}

/// xerial snappy-java's stream header: magic, version 1, compatible with version 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Its magic alone.
const XERIAL_MAGIC_LEN: usize = 8;
/// Uncompressed bytes per xerial block, as snappy-java writes by default.
const XERIAL_BLOCK: usize = 32 << 10;
/// No snappy element yields more than 64 bytes from 3 (a copy with a two-byte offset), so a larger
/// claim is a lie. <https://github.com/google/snappy/blob/main/format_description.txt>
const SNAPPY_MAX_RATIO: usize = 22;
/// Largest window that a zstd frame may ask for: 128 MiB, what zstd's own highest levels use.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// How an LZ4 frame with content begins.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// zstd's and Kafka's default.
const ZSTD_LEVEL: i32 = 3;

/// Appends `input` compressed to `out`. Memory is the only thing that could fail, so nothing does.
pub fn compress(codec: Compression, input: &[u8], out: &mut BytesMut) {
    let done = match codec {
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => gzip(input, out),
        Compression::Snappy => snappy(input, out),
        Compression::Lz4 => lz4(input, out),
        Compression::Zstd => zstd(input, out),
    };
    done.expect("writing to memory does not fail");
}

fn gzip(input: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(out.writer(), flate2::Compression::default());
    encoder.write_all(input)?;
    encoder.finish().map(drop)
}

fn snappy(input: &[u8], out: &mut BytesMut) -> io::Result<()> {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    let mut scratch = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK.min(input.len()))];
    for block in input.chunks(XERIAL_BLOCK) {
        let len = encoder.compress(block, &mut scratch)?;
        out.put_i32(len as i32);
        out.extend_from_slice(&scratch[..len]);
    }
    Ok(())
}

fn lz4(input: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let mut encoder = lz4::EncoderBuilder::new()
        .block_mode(lz4::BlockMode::Independent)
        .block_size(lz4::BlockSize::Max64KB)
        .checksum(lz4::ContentChecksum::NoChecksum)
        .build(out.writer())?;
    encoder.write_all(input)?;
    encoder.finish().1
}

fn zstd(input: &[u8], out: &mut BytesMut) -> io::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(out.writer(), ZSTD_LEVEL)?;
    encoder.set_pledged_src_size(Some(input.len() as u64))?;
    encoder.write_all(input)?;
    encoder.finish().map(drop)
}

/// Decompresses all of `input`, to at most `limit` bytes.
pub fn decompress(
    codec: Compression,
    input: &[u8],
    limit: usize,
) -> Result<Vec<u8>, DecompressError> {
    let malformed = |cause: io::Error| DecompressError::Malformed {
        codec,
        cause: cause.to_string(),
    };
    match codec {
        Compression::None => read_bounded(codec, input, limit),
        Compression::Gzip => read_bounded(codec, flate2::read::MultiGzDecoder::new(input), limit),
        Compression::Snappy => unsnappy(input, limit),
        Compression::Lz4 => unlz4(input, limit),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(malformed)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(malformed)?;
            read_bounded(codec, decoder, limit)
        }
    }
}

fn read_bounded(
    codec: Compression,
    reader: impl Read,
    limit: usize,
) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    let read = reader.take(limit as u64 + 1).read_to_end(&mut out);
    read.map_err(|cause| DecompressError::Malformed {
        codec,
        cause: cause.to_string(),
    })?;
    if out.len() > limit {
        return Err(DecompressError::TooLarge { codec, limit });
    }
    Ok(out)
}

/// One whole frame and nothing behind it: Kafka's Java decoder reads no second one, and librdkafka
/// refuses what has no end mark or goes on after it.
fn unlz4(input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let malformed = |cause: &str| DecompressError::Malformed {
        codec: Compression::Lz4,
        cause: cause.to_owned(),
    };
    // not one of those that hold no content: they may be shorter than what the decoder reads first
    if !input.starts_with(&LZ4_MAGIC) {
        return Err(malformed("no frame begins here"));
    }
    let decoder = lz4::Decoder::new(input);
    let mut decoder = decoder.map_err(|cause| malformed(&cause.to_string()))?;
    let out = read_bounded(Compression::Lz4, &mut decoder, limit)?;
    match decoder.finish() {
        (_, Err(_)) => Err(malformed("cut off")),
        ([], Ok(())) => Ok(out),
        _ => Err(malformed("the frame is over before the data")),
    }
}

fn unsnappy(input: &[u8], limit: usize) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    if !input.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_LEN]) {
        unsnappy_block(input, limit, &mut out)?;
        return Ok(out);
    }
    let cut_off = || malformed_snappy("cut off");
    let mut rest = input.get(XERIAL_HEADER.len()..).ok_or_else(cut_off)?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length))
            .map_err(|_| malformed_snappy("negative block length"))?;
        let block = after.get(..length).ok_or_else(cut_off)?;
        unsnappy_block(block, limit, &mut out)?;
        rest = &after[length..];
    }
    if rest.is_empty() {
        Ok(out)
    } else {
        Err(cut_off())
    }
}

fn malformed_snappy(cause: impl ToString) -> DecompressError {
    DecompressError::Malformed {
        codec: Compression::Snappy,
        cause: cause.to_string(),
    }
}

/// Appends one raw snappy block to `out`, which then holds at most `limit` bytes.
fn unsnappy_block(block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), DecompressError> {
    let claimed = snap::raw::decompress_len(block).map_err(malformed_snappy)?;
    if claimed > limit - out.len() {
        return Err(DecompressError::TooLarge {
            codec: Compression::Snappy,
            limit,
        });
    }
    if claimed > block.len() * SNAPPY_MAX_RATIO {
        return Err(malformed_snappy("claims more than it can hold"));
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let mut decoder = snap::raw::Decoder::new();
    decoder
        .decompress(block, &mut out[start..])
        .map_err(malformed_snappy)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn compressed(codec: Compression, input: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        compress(codec, input, &mut out);
        out
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..len)
            .map(|i| (i / 7 % 251) as u8 ^ (i % 3) as u8)
            .collect()
    }

    #[test]
    fn every_codec_gives_back_what_it_took() {
        for codec in Compression::ALL {
            for len in [0, 1, 100, XERIAL_BLOCK, XERIAL_BLOCK + 1, 300_000] {
                let input = sample(len);
                let packed = compressed(codec, &input);
                assert_eq!(
                    decompress(codec, &packed, LIMIT).unwrap(),
                    input,
                    "{codec} {len}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeros = vec![0; 8 << 20];
        for codec in Compression::ALL {
            let packed = compressed(codec, &zeros);
            assert!(
                matches!(
                    decompress(codec, &packed, LIMIT),
                    Err(DecompressError::TooLarge { limit: LIMIT, .. })
                ),
                "{codec}"
            );
            assert_eq!(
                decompress(codec, &packed, zeros.len()).unwrap().len(),
                zeros.len()
            );
            assert!(
                decompress(codec, &packed, zeros.len() - 1).is_err(),
                "{codec}"
            );
        }
    }

    #[test]
    fn every_cut_is_an_error_or_a_prefix() {
        let input = sample(5_000);
        for codec in Compression::ALL {
            let packed = compressed(codec, &input);
            for end in 0..packed.len() {
                if let Ok(out) = decompress(codec, &packed[..end], LIMIT) {
                    assert!(input.starts_with(&out), "{codec} cut at {end}");
                }
            }
        }
    }

    #[test]
    fn raw_snappy_is_read() {
        let input = sample(10_000);
        let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
        assert_eq!(decompress(Compression::Snappy, &raw, LIMIT).unwrap(), input);
    }

    #[test]
    fn a_snappy_claim_alone_allocates_nothing() {
        // a varint that claims 1 MiB and no content at all
        let claim = [0x80, 0x80, 0x40];
        let error = decompress(Compression::Snappy, &claim, 2 << 20).unwrap_err();
        assert!(
            error.to_string().contains("claims more than it can hold"),
            "{error}"
        );
        // the most that any content yields stays under the ratio
        let zeros = vec![0; 1 << 20];
        let raw = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
        assert!(zeros.len() <= raw.len() * SNAPPY_MAX_RATIO);
    }

    #[test]
    fn xerial_framing_is_what_java_writes() {
        let packed = compressed(Compression::Snappy, b"abc");
        // header, block of 5 bytes: length 3 as a varint, literal tag of 3 bytes, content
        assert_eq!(
            packed[..],
            *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x05\x03\x08abc"
        );
    }

    #[test]
    fn lz4_frames_suit_kafkas_java_decoder() {
        let packed = compressed(Compression::Lz4, &sample(100_000));
        assert_eq!(packed[..4], LZ4_MAGIC);
        let flags = packed[4];
        assert_eq!(flags >> 6, 1, "version 01");
        assert_ne!(flags & 0x20, 0, "blocks are independent");
    }

    #[test]
    fn lz4_is_one_whole_frame() {
        for len in [0, 1, 50, 100_000] {
            let packed = compressed(Compression::Lz4, &sample(len));
            for end in 0..packed.len() {
                let cut = decompress(Compression::Lz4, &packed[..end], LIMIT);
                assert!(cut.is_err(), "{len} bytes cut at {end}");
            }
            let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
            for more in [b"j", &b"junk"[..], &packed, skippable] {
                let longer = [&packed[..], more].concat();
                let error = decompress(Compression::Lz4, &longer, LIMIT).unwrap_err();
                assert!(error.to_string().contains("over before"), "{error}");
            }
        }
    }

    #[test]
    fn garbage_is_malformed() {
        for codec in [
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            let error = decompress(codec, b"\xff\xff\xff\xff\xff\xff garbage", LIMIT).unwrap_err();
            assert!(
                matches!(error, DecompressError::Malformed { .. }),
                "{codec}: {error}"
            );
        }
    }
}
