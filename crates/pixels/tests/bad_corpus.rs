//! Hostile files, made here: hundreds of damaged ones and dozens of decompression bombs, of every format.
//!
//! Each must give a picture or a typed error, let no panic out, and let the memory of the program grow by no more than
//! [`MAX_GROWTH`] while it is looked at. Growth is what is allocated and not freed, counted by the allocator of this
//! test program, so that neither the machine nor the other tests blur it.

#![allow(unsafe_code, reason = "an allocator that counts can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Cursor, Write as _};
use std::panic;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{DynamicImage, ImageFormat};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use twoview_pixels::{DecodeError, DecodeOptions, Image, decode, encode_png, read_header};

const OPTIONS: DecodeOptions = DecodeOptions::STANDARD;

/// By how much one file may let the program grow, in bytes.
const MAX_GROWTH: isize = 64 << 20;

/// How long one file may take. Generous, for loaded machines: the slowest takes well below a second.
const MAX_TIME: Duration = Duration::from_secs(20);

/// The system's allocator, with a count for each thread of what it holds and what it held at most.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that is ending has no counters any more and decodes nothing.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).expect("a layout is no larger")
}

// SAFETY: every call is handed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both blocks may be there at once while the content moves.
        count(signed(new_size));
        count(-signed(layout.size()));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` and tells by how many bytes this thread's memory grew on the way at most.
fn growth_of<T>(work: impl FnOnce() -> T) -> (T, isize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// Decodes one file of the corpus; the promises hold whatever it holds.
#[track_caller]
fn check(name: &str, bytes: &[u8]) -> Result<Image, DecodeError> {
    let begun = Instant::now();
    let (outcome, growth) = growth_of(|| {
        panic::catch_unwind(|| {
            // Both ways in: a scan that reads headers only must be as safe as one that decodes.
            let header = read_header(bytes, &OPTIONS);
            let decoded = decode(bytes, &OPTIONS);
            assert!(header.is_ok() || decoded.is_err(), "{name}: pixels without a header");
            decoded
        })
    });
    let outcome = outcome.unwrap_or_else(|_| panic!("{name}: a panic came out"));
    assert!(growth <= MAX_GROWTH, "{name}: {} bytes let the program grow by {growth}: {outcome:.200?}", bytes.len());
    assert!(begun.elapsed() < MAX_TIME, "{name}: took {:?}", begun.elapsed());
    if let Err(error) = &outcome {
        assert!(!error.to_string().is_empty(), "{name}");
    }
    outcome
}

/// Numbers that look random and are the same in every run: xorshift, Marsaglia 2003.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }
}

fn picture(width: u32, height: u32) -> Image {
    let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let slope = (x * 2 + y * 3) % 200;
            pixels.extend([slope, 255 - slope, x % 256].map(|value| value.to_le_bytes()[0] ^ (numbers.byte() & 7)));
        }
    }
    Image::from_rgb8(width, height, pixels).expect("a valid size")
}

fn jpeg(progressive: bool) -> Vec<u8> {
    let image = picture(48, 40);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 88);
    encoder.set_progressive(progressive);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode(image.as_rgb8(), 48, 40, ColorType::Rgb).expect("encodable");
    bytes
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("an encodable picture");
    bytes.into_inner()
}

/// A sound file of every kind that can be made here; damage is done to these.
fn sound_files() -> Vec<(&'static str, Vec<u8>)> {
    let image = picture(48, 40);
    let rgb: DynamicImage = image::RgbImage::from_raw(48, 40, image.as_rgb8().to_vec()).expect("the length").into();
    let grey = DynamicImage::ImageLuma8(rgb.to_luma8());
    let alpha = DynamicImage::ImageRgba8(rgb.to_rgba8());
    let deep = DynamicImage::ImageRgb16(rgb.to_rgb16());
    vec![
        ("jpeg", jpeg(false)),
        ("jpeg-progressive", jpeg(true)),
        ("png", encode_png(&image).expect("encodable")),
        ("png-16-bit", encoded(&deep, ImageFormat::Png)),
        ("png-palette", palette_png()),
        ("webp-lossless", encoded(&rgb, ImageFormat::WebP)),
        ("webp-lossless-alpha", encoded(&alpha, ImageFormat::WebP)),
        ("webp-lossy", riff(&[(b"VP8 ", VP8_DOT.to_vec())])),
        ("bmp", encoded(&rgb, ImageFormat::Bmp)),
        ("bmp-grey", encoded(&grey, ImageFormat::Bmp)),
        ("gif", encoded(&rgb, ImageFormat::Gif)),
        ("tiff", encoded(&rgb, ImageFormat::Tiff)),
        ("tiff-16-bit", encoded(&deep, ImageFormat::Tiff)),
        ("ppm", encoded(&rgb, ImageFormat::Pnm)),
        ("pgm", encoded(&grey, ImageFormat::Pnm)),
        ("ppm-text", [b"P3\n4 3\n255\n".as_slice(), b"1 2 3 ".repeat(12).as_slice()].concat()),
    ]
}

/// A lossy WebP picture of one pixel, the payload of its `VP8 ` chunk.
const VP8_DOT: [u8; 24] = [
    0x30, 0x01, 0x00, 0x9D, 0x01, 0x2A, 0x01, 0x00, 0x01, 0x00, 0x02, 0x00, 0x34, 0x25, 0xA4, 0x00, 0x03, 0x70, 0x00,
    0xFE, 0xFB, 0x94, 0x00, 0x00,
];

fn riff(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (name, payload) in chunks {
        body.extend(*name);
        body.extend(u32::try_from(payload.len()).expect("small").to_le_bytes());
        body.extend(payload);
        body.extend(vec![0; payload.len() % 2]);
    }
    [b"RIFF".as_slice(), &u32::try_from(body.len()).expect("small").to_le_bytes(), &body].concat()
}

fn png(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1A\n".to_vec();
    for (name, payload) in chunks {
        bytes.extend(u32::try_from(payload.len()).expect("small").to_be_bytes());
        let named = [name.as_slice(), payload].concat();
        bytes.extend(&named);
        bytes.extend(crc32fast::hash(&named).to_be_bytes());
    }
    bytes
}

/// The payload of IHDR.
fn ihdr(width: u32, height: u32, depth: u8, color: u8) -> (&'static [u8; 4], Vec<u8>) {
    (b"IHDR", [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, color, 0, 0, 0]].concat())
}

const IEND: (&[u8; 4], Vec<u8>) = (b"IEND", Vec::new());

fn deflated(n_bytes: usize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for start in (0..n_bytes).step_by(zeros.len()) {
        encoder.write_all(&zeros[..zeros.len().min(n_bytes - start)]).expect("into memory");
    }
    encoder.finish().expect("into memory")
}

fn palette_png() -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    for row in 0..16u8 {
        encoder.write_all(&[0]).expect("into memory");
        encoder.write_all(&[row % 4; 16]).expect("into memory");
    }
    let idat = encoder.finish().expect("into memory");
    png(&[ihdr(16, 16, 8, 3), (b"PLTE", (0..12).collect()), (b"IDAT", idat), IEND])
}

/// The damaged files: every sound one cut, bent and lied about, and files that never were pictures.
fn damaged() -> Vec<(String, Vec<u8>)> {
    let mut corpus = Vec::new();
    let mut numbers = Numbers(88_172_645_463_325_252);
    for (kind, whole) in sound_files() {
        let n = whole.len();
        let mut add = |what: String, bytes: Vec<u8>| corpus.push((format!("{kind}: {what}"), bytes));
        for part in 0..24 {
            let cut = n * part / 24;
            add(format!("cut to {cut} bytes"), whole[..cut].to_vec());
        }
        for cut in (1..40.min(n)).step_by(3) {
            add(format!("cut to {cut} bytes"), whole[..cut].to_vec());
        }
        let mut bent = |what: &str, change: &mut dyn FnMut(&mut Vec<u8>, usize)| {
            for at in (0..64.min(n)).step_by(2) {
                let mut bytes = whole.clone();
                change(&mut bytes, at);
                add(format!("{what} at {at}"), bytes);
            }
        };
        bent("ones", &mut |bytes, at| bytes[at] = 0xFF);
        bent("zeros", &mut |bytes, at| bytes[at] = 0);
        bent("top bit", &mut |bytes, at| bytes[at] ^= 0x80);
        bent("eight ones", &mut |bytes, at| bytes[at..n.min(at + 8)].fill(0xFF));
        bent("gap", &mut |bytes, at| drop(bytes.drain(at..n.min(at + 3))));
        for i in 0..48 {
            let (at, bit) = (numbers.below(n), numbers.below(8));
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            add(format!("bit {bit} of byte {at} flipped, {i}"), bytes);
        }
        for i in 0..16 {
            let (from, len) = (numbers.below(n), 1 + numbers.below(64));
            let mut bytes = whole.clone();
            bytes[from..n.min(from + len)].fill_with(|| numbers.byte());
            add(format!("noise in {len} bytes from {from}, {i}"), bytes);
        }
        add("twice".to_owned(), whole.repeat(2));
        add("with junk behind it".to_owned(), [whole.as_slice(), &[0xA5; 1000]].concat());
        add("behind junk".to_owned(), [&[0xA5; 7], whole.as_slice()].concat());
        add("zeros to the same length".to_owned(), [&whole[..12.min(n)], &vec![0; n]].concat());
    }
    corpus.extend(never_pictures());
    corpus.extend(broken_by_rule());
    corpus
}

fn never_pictures() -> Vec<(String, Vec<u8>)> {
    let texts: [(&str, &[u8]); 16] = [
        ("empty", b""),
        ("one byte", b"\xFF"),
        ("zeros", &[0; 4096]),
        ("ones", &[0xFF; 4096]),
        ("text", b"this is not a picture\n"),
        ("web page", b"<!DOCTYPE html><html>Not Found</html>"),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("zip", b"PK\x03\x04\x14\0\0\0\x08\0"),
        ("gzip", b"\x1F\x8B\x08\0\0\0\0\0\0\x03"),
        ("pdf", b"%PDF-1.7\n"),
        ("lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("heic", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"),
        ("avif", b"\0\0\0\x1Cftypavif\0\0\0\0avifmif1miaf"),
        ("bigtiff", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"),
        ("jpeg xl", b"\xFF\x0A\xFA\x1F\x01\x90"),
        ("jpeg 2000", b"\0\0\0\x0CjP  \r\n\x87\n"),
    ];
    texts.map(|(name, bytes)| (format!("never a picture: {name}"), bytes.to_vec())).to_vec()
}

/// Files that are well-formed but for one rule of their format.
fn broken_by_rule() -> Vec<(String, Vec<u8>)> {
    let row = || deflated(17 * 16);
    let mut corpus = vec![
        ("png: no side", png(&[ihdr(0, 0, 8, 2), (b"IDAT", row()), IEND])),
        ("png: depth 3", png(&[ihdr(16, 16, 3, 0), (b"IDAT", row()), IEND])),
        ("png: colour type 9", png(&[ihdr(16, 16, 8, 9), (b"IDAT", row()), IEND])),
        ("png: palette of a palette picture missing", png(&[ihdr(16, 16, 8, 3), (b"IDAT", row()), IEND])),
        ("png: palette empty", png(&[ihdr(16, 16, 8, 3), (b"PLTE", vec![]), (b"IDAT", row()), IEND])),
        (
            "png: palette of a byte and a half",
            png(&[ihdr(16, 16, 8, 3), (b"PLTE", vec![1; 4]), (b"IDAT", row()), IEND]),
        ),
        ("png: palette of 300", png(&[ihdr(16, 16, 8, 3), (b"PLTE", vec![1; 900]), (b"IDAT", row()), IEND])),
        ("png: no pixels", png(&[ihdr(16, 16, 8, 0), IEND])),
        ("png: pixels are no zlib", png(&[ihdr(16, 16, 8, 0), (b"IDAT", vec![7; 99]), IEND])),
        ("png: two headers", png(&[ihdr(16, 16, 8, 0), ihdr(9, 9, 8, 0), (b"IDAT", row()), IEND])),
        ("png: header late", png(&[(b"IDAT", row()), ihdr(16, 16, 8, 0), IEND])),
        ("png: too few rows", png(&[ihdr(16, 99, 8, 0), (b"IDAT", row()), IEND])),
        ("gif: no frame", gif(4, 4, &[])),
        ("gif: frame outside", gif(4, 4, &gif_frame(3, 3, 4, 4))),
        ("gif: frame without pixels", gif(4, 4, &gif_frame(0, 0, 0, 0))),
        ("gif: palette missing", [b"GIF89a\x04\0\x04\0\0\0\0".as_slice(), &gif_frame(0, 0, 4, 4), b";"].concat()),
        ("webp: no chunk", riff(&[])),
        ("webp: no picture in it", riff(&[(b"VP8X", vp8x(0, 4, 4))])),
        ("webp: both kinds", riff(&[(b"VP8X", vp8x(0, 1, 1)), (b"VP8 ", VP8_DOT.to_vec()), (b"VP8L", vp8l(1, 1))])),
        ("webp: animation without frame", riff(&[(b"VP8X", vp8x(2, 4, 4)), (b"ANIM", vec![0; 6])])),
        ("webp: frame of three bytes", riff(&[(b"VP8X", vp8x(2, 4, 4)), (b"ANIM", vec![0; 6]), (b"ANMF", vec![0; 3])])),
        ("webp: another size inside", riff(&[(b"VP8X", vp8x(0, 9, 9)), (b"VP8 ", VP8_DOT.to_vec())])),
        ("tiff: no directory", b"II*\0\x08\0\0\0".to_vec()),
        ("tiff: directory far outside", b"II*\0\xFF\xFF\xFF\x7F".to_vec()),
        ("tiff: directory in itself", tiff(&[], 8)),
        ("tiff: no sides", tiff(&[(258, 3, 1, 8)], 0)),
        ("tiff: compression 31337", tiff(&[(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, 31337)], 0)),
        ("bmp: header of 3 bytes", bmp(3, 4, 4, 24, 0)),
        ("bmp: depth 7", bmp(40, 4, 4, 7, 0)),
        ("bmp: compression 99", bmp(40, 4, 4, 24, 99)),
        ("bmp: upside down without end", bmp(40, 4, i32::MIN, 24, 0)),
        ("bmp: negative width", bmp(40, -4, 4, 24, 0)),
    ];
    let pnm: [(&str, &str); 12] = [
        ("no numbers", "P6\n"),
        ("letters", "P6\nfour four\n255\n"),
        ("a minus", "P6\n-4 4\n255\n"),
        ("no maximum", "P5\n4 4\n"),
        ("maximum 0", "P5\n4 4\n0\n0000000000000000"),
        ("maximum 70000", "P5\n4 4\n70000\n0000000000000000"),
        ("values above the maximum", "P2\n2 2\n10\n1 2 3 400\n"),
        ("no pixels", "P4\n64 64\n"),
        ("text pixels missing", "P1\n4 4\n1 0 1"),
        ("tuple type unknown", "P7\nWIDTH 4\nHEIGHT 4\nDEPTH 9\nMAXVAL 255\nTUPLTYPE WHAT\nENDHDR\n"),
        ("no end of header", "P7\nWIDTH 4\nHEIGHT 4\n"),
        ("only a comment", "P6 # nothing"),
    ];
    corpus.extend(pnm.map(|(name, text)| (name, text.as_bytes().to_vec())));
    corpus.into_iter().map(|(name, bytes)| (format!("rule: {name}"), bytes)).collect()
}

fn gif(width: u16, height: u16, frames: &[u8]) -> Vec<u8> {
    let screen = [&width.to_le_bytes()[..], &height.to_le_bytes(), &[0x80, 0, 0], &[0, 0, 0, 255, 255, 255]].concat();
    [b"GIF89a".as_slice(), &screen, frames, b";"].concat()
}

/// A frame whose coded data are one clear code and the end.
fn gif_frame(left: u16, top: u16, width: u16, height: u16) -> Vec<u8> {
    let sides = [left, top, width, height].map(u16::to_le_bytes).concat();
    [b",".as_slice(), &sides, &[0], &[2, 2, 0x4C, 0x01, 0]].concat()
}

fn vp8x(flags: u8, width: u32, height: u32) -> Vec<u8> {
    [&[flags, 0, 0, 0][..], &(width - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3]].concat()
}

/// A lossless WebP picture in one colour: no bits for its pixels at all.
fn vp8l(width: u32, height: u32) -> Vec<u8> {
    let mut bits: u128 = u128::from(width - 1) | u128::from(height - 1) << 14;
    // No alpha, version 0, no transform, no colour cache, no groups: 32 + 3 bits; five codes of one symbol each.
    for code in 0..5 {
        bits |= 0b0001 << (35 + 4 * code);
    }
    [&[0x2F][..], &bits.to_le_bytes()].concat()
}

/// A little-endian TIFF file of one directory; `next` is where the next one is said to be.
fn tiff(entries: &[(u16, u16, u32, u32)], next: u32) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0".to_vec();
    bytes.extend(u16::try_from(entries.len()).expect("few").to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(next.to_le_bytes());
    bytes.extend([0; 64]);
    bytes
}

/// The entries of a TIFF picture in 8-bit grey that stands in one strip at byte 8.
fn tiff_picture(width: u32, height: u32, compression: u32) -> Vec<(u16, u16, u32, u32)> {
    vec![
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, 60),
    ]
}

fn bmp(header: u32, width: i32, height: i32, depth: u16, compression: u32) -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0".to_vec();
    bytes.extend(header.to_le_bytes());
    bytes.extend(width.to_le_bytes());
    bytes.extend(height.to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(depth.to_le_bytes());
    bytes.extend(compression.to_le_bytes());
    bytes.extend([0; 20]);
    bytes.extend([0; 64]);
    bytes
}

/// A JPEG whose frame header claims other sides than it was made with.
fn jpeg_claiming(progressive: bool, width: u16, height: u16) -> Vec<u8> {
    let mut bytes = jpeg(progressive);
    let frame = [0xFF, if progressive { 0xC2 } else { 0xC0 }];
    let at = bytes.windows(2).position(|two| two == frame).expect("a frame header");
    bytes[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    bytes[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

/// A progressive JPEG that repeats its last scan.
fn jpeg_of_many_scans(n: usize) -> Vec<u8> {
    let bytes = jpeg(true);
    let last = bytes.windows(2).rposition(|two| two == [0xFF, 0xDA]).expect("a scan");
    let end = bytes.len() - 2;
    [&bytes[..end], &bytes[last..end].repeat(n), &bytes[end..]].concat()
}

/// Small files that promise or unfold to something enormous.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let many_zeros = deflated(1 << 28);
    let grey = |width, height| [ihdr(width, height, 8, 0), (b"IDAT", deflated(64)), IEND];
    let small = || (b"IDAT", deflated(17 * 16));
    let with = |name: &'static [u8; 4], payload: Vec<u8>| png(&[ihdr(16, 16, 8, 0), (name, payload), small(), IEND]);
    let animated = riff(&[
        (b"VP8X", vp8x(2, 1, 1)),
        (b"ANIM", vec![0; 6]),
        (b"ANMF", [&[0; 16][..], b"VP8 \x18\0\0\0", &vp8_claiming(16383, 16383)].concat()),
    ]);
    vec![
        ("jpeg: 65500x65500", jpeg_claiming(false, 65500, 65500)),
        ("jpeg: 10000x9999, no data", jpeg_claiming(false, 10000, 9999)),
        ("jpeg: 65535x1500, no data", jpeg_claiming(false, 65535, 1500)),
        ("jpeg: progressive, 65500x65500", jpeg_claiming(true, 65500, 65500)),
        ("jpeg: progressive, 10000x9999, no data", jpeg_claiming(true, 10000, 9999)),
        ("jpeg: progressive, 2000x1800, no data", jpeg_claiming(true, 2000, 1800)),
        ("jpeg: 5000 scans", jpeg_of_many_scans(5000)),
        ("jpeg: 70000 comments", {
            let file = jpeg(false);
            [&file[..2], &b"\xFF\xFE\0\x04hi".repeat(70_000), &file[2..]].concat()
        }),
        ("jpeg: padded to pass for large", {
            let file = jpeg_claiming(false, 10000, 9999);
            [&file[..2], &[&b"\xFF\xFE\xFF\xFF"[..], &[7; 65533]].concat().repeat(4), &file[2..]].concat()
        }),
        ("png: 60000x60000", png(&grey(60_000, 60_000))),
        ("png: 2147483647x2147483647", png(&grey(0x7FFF_FFFF, 0x7FFF_FFFF))),
        ("png: 10000x9999, no data", png(&grey(10_000, 9_999))),
        ("png: 16-bit RGBA, 10000x9999, no data", png(&[ihdr(10_000, 9_999, 16, 6), small(), IEND])),
        ("png: one row of 99999999", png(&grey(99_999_999, 1))),
        ("png: pixels unfold to 256 MiB", png(&[ihdr(16, 16, 8, 0), (b"IDAT", many_zeros.clone()), IEND])),
        ("png: 16-bit RGBA padded to pass for large", {
            let padding = (b"prVt", vec![7; 200_000]);
            png(&[ihdr(10_000, 9_999, 16, 6), padding, small(), IEND])
        }),
        ("png: profile unfold to 256 MiB", with(b"iCCP", [b"p\0\0".as_slice(), &many_zeros].concat())),
        ("png: text unfold to 256 MiB", with(b"zTXt", [b"k\0\0".as_slice(), &many_zeros].concat())),
        ("png: international text unfolds", with(b"iTXt", [b"k\0\x01\0\0\0".as_slice(), &many_zeros].concat())),
        ("png: 30 MiB of text", with(b"tEXt", [b"k\0".as_slice(), &vec![b'x'; 30 << 20]].concat())),
        ("png: 300000 text chunks", {
            let chunks: Vec<_> = std::iter::once(ihdr(16, 16, 8, 0))
                .chain(std::iter::repeat_n((b"tEXt", b"k\0v".to_vec()), 300_000))
                .chain([small(), IEND])
                .collect();
            png(&chunks)
        }),
        ("png: animation of 2^31 frames", with(b"acTL", [&0x7FFF_FFFFu32.to_be_bytes()[..], &[0; 4]].concat())),
        ("gif: screen 65535x65535", gif(65535, 65535, &gif_frame(0, 0, 1, 1))),
        ("gif: screen 9999x9999, frame 1x1", gif(9999, 9999, &gif_frame(0, 0, 1, 1))),
        ("gif: screen 1x1, frame 65535x65535", gif(1, 1, &gif_frame(0, 0, 65535, 65535))),
        ("gif: screen 1x1, frame 9000x9000", gif(1, 1, &gif_frame(0, 0, 9000, 9000))),
        ("gif: 200000 frames", gif(9, 9, &gif_frame(0, 0, 9, 9).repeat(200_000))),
        ("gif: 30 MiB of comments", {
            gif(9, 9, &[b"!\xFE".as_slice(), &[&[255][..], &[7; 255]].concat().repeat(120_000), &[0]].concat())
        }),
        ("tiff: 65000x65000", tiff(&tiff_picture(65_000, 65_000, 1), 0)),
        ("tiff: 10000x9999, no data", tiff(&tiff_picture(10_000, 9_999, 1), 0)),
        ("tiff: deflate, 10000x9999, no data", tiff(&tiff_picture(10_000, 9_999, 8), 0)),
        ("tiff: LZW, 10000x9999, no data", tiff(&tiff_picture(10_000, 9_999, 5), 0)),
        ("tiff: 2^30 strips", {
            let mut entries = tiff_picture(16, 16, 1);
            (entries[5].2, entries[8].2, entries[7].3) = (1 << 30, 1 << 30, 1);
            tiff(&entries, 0)
        }),
        ("tiff: a strip of 4 GiB", {
            let mut entries = tiff_picture(16, 16, 1);
            entries[8].3 = u32::MAX;
            tiff(&entries, 0)
        }),
        ("tiff: 2^31 bits of a sample", {
            let mut entries = tiff_picture(16, 16, 1);
            entries[2].2 = 1 << 31;
            tiff(&entries, 0)
        }),
        ("tiff: tiles of 2^30", {
            let mut entries = tiff_picture(16, 16, 1);
            entries.extend([(322, 4, 1, 1 << 30), (323, 4, 1, 1 << 30), (324, 4, 1, 8), (325, 4, 1, 60)]);
            tiff(&entries, 0)
        }),
        ("tiff: 65535 tags", tiff(&vec![(256, 4, 1 << 28, 8); 65_535], 0)),
        ("webp: canvas 16777216x256", riff(&[(b"VP8X", vp8x(0, 1 << 24, 256)), (b"VP8 ", VP8_DOT.to_vec())])),
        ("webp: canvas 10000x9999, frame 1x1", riff(&[(b"VP8X", vp8x(0, 10_000, 9_999)), (b"VP8L", vp8l(1, 1))])),
        ("webp: canvas 1x1, frame 16383x16383", {
            riff(&[(b"VP8X", vp8x(0, 1, 1)), (b"VP8 ", vp8_claiming(16383, 16383))])
        }),
        ("webp: canvas 1x1, lossless frame", riff(&[(b"VP8X", vp8x(0, 1, 1)), (b"VP8L", vp8l(16383, 16383))])),
        ("webp: animation, canvas 1x1, frame 16383x16383", animated),
        ("webp: one colour, 16383x16383", riff(&[(b"VP8L", vp8l(16383, 16383))])),
        ("webp: one colour, 9999x9999", riff(&[(b"VP8L", vp8l(9999, 9999))])),
        ("webp: lossy, 9999x9999, no data", riff(&[(b"VP8 ", vp8_claiming(9999, 9999))])),
        ("pnm: numbers without end", b"P6\n99999999999999999999999999 1\n255\n".to_vec()),
        ("pnm: 4294967295x4294967295", b"P6\n4294967295 4294967295\n255\n".to_vec()),
        ("pnm: 10000x9999, no data", b"P6\n10000 9999\n255\nabc".to_vec()),
        ("pnm: 10000x9999 in bits, no data", b"P4\n10000 9999\nabc".to_vec()),
        ("pnm: 10000x9999 as text, no data", b"P3\n10000 9999\n255\n1 2 3".to_vec()),
        ("pnm: 30 MiB of comment", [b"P6\n#".as_slice(), &vec![b'x'; 30 << 20], b"\n1 1\n255\nabc"].concat()),
        ("pnm: depth without end", {
            b"P7\nWIDTH 9999\nHEIGHT 9999\nDEPTH 4000000000\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\nabc".to_vec()
        }),
        ("bmp: 60000x60000", bmp(40, 60_000, 60_000, 24, 0)),
        ("bmp: 10000x9999, no data", bmp(40, 10_000, 9_999, 24, 0)),
        ("bmp: run lengths, 10000x9999, ends at once", bmp(40, 10_000, 9_999, 8, 1)),
        ("bmp: header of 2 GiB", bmp(0x7FFF_FFFF, 4, 4, 24, 0)),
        ("bmp: palette of 2^31", {
            let mut file = bmp(40, 4, 4, 8, 0);
            file[46..50].copy_from_slice(&0x8000_0000u32.to_le_bytes());
            file
        }),
    ]
}

/// A lossy WebP picture that claims other sides than it was made with.
fn vp8_claiming(width: u16, height: u16) -> Vec<u8> {
    let mut payload = VP8_DOT.to_vec();
    payload[6..8].copy_from_slice(&width.to_le_bytes());
    payload[8..10].copy_from_slice(&height.to_le_bytes());
    payload
}

#[test]
fn damaged_files_give_a_picture_or_an_error() {
    let corpus = damaged();
    assert!(corpus.len() >= 200, "only {} files", corpus.len());
    let n_refused = corpus.iter().filter(|(name, bytes)| check(name, bytes).is_err()).count();
    // Some damage cannot be noticed, such as another grey level; most can.
    assert!(n_refused * 2 > corpus.len(), "{n_refused} of {} files were refused", corpus.len());
}

#[test]
fn files_that_break_one_rule_are_refused() {
    // Decoders are lenient here, and what comes out is a picture.
    let lenient = ["png: two headers", "gif: frame outside", "values above the maximum"];
    for (name, bytes) in never_pictures().into_iter().chain(broken_by_rule()) {
        let outcome = check(&name, &bytes);
        assert!(outcome.is_err() || lenient.iter().any(|end| name.ends_with(end)), "{name} passed for a picture");
    }
}

#[test]
fn bombs_do_not_go_off() {
    let bombs = bombs();
    assert!(bombs.len() >= 30, "only {} bombs", bombs.len());
    for (name, bytes) in bombs {
        // Bombs that unfold beside the picture leave it whole; what is in the way of the picture is an error.
        if let Ok(image) = check(name, &bytes) {
            assert!(image.width() <= 48, "{name} passed for a picture of {} pixels per row", image.width());
        }
    }
}

/// What is refused as a bomb must be one: the sparsest honest files pass.
#[test]
fn flat_pictures_are_no_bombs() {
    let flat = Image::filled(1400, 1400, [7; 3]).expect("a valid size");
    check("flat PNG", &encode_png(&flat).expect("encodable")).expect("a picture");
    check("flat WebP", &riff(&[(b"VP8L", vp8l(1400, 1400))])).expect("a picture");
    let larger: DynamicImage = image::GrayImage::from_pixel(2400, 1600, image::Luma([255])).into();
    check("white page", &encoded(&larger, ImageFormat::Png)).expect("a picture");
    check("white page", &encoded(&larger, ImageFormat::Pnm)).expect("a picture");
    check("white page", &encoded(&larger, ImageFormat::Tiff)).expect("a picture");
    check("white page", &encoded(&larger, ImageFormat::Bmp)).expect("a picture");
    let mut jpeg = Vec::new();
    let white = vec![255; 2400 * 1600];
    Encoder::new(&mut jpeg, 1).encode(&white, 2400, 1600, ColorType::Luma).expect("encodable");
    check("white JPEG", &jpeg).expect("a picture");
}
