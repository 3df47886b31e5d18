//! WebDataset shards: pictures in tar archives, read where they lie.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use twoview_pixels::{DecodeOptions, Image};

use crate::class_names::of_numbers;
use crate::escaped_path::escape_relative;
use crate::fixed_file::FixedFile;
use crate::picture_at::{ByteRange, read_bytes, read_picture};
use crate::shard_files::shards_in;
use crate::source::group_by_first;
use crate::tar_index::{TarMember, index_tar};
use crate::{Fingerprint, Problem, ReadBuffers, SampleError, Source, Split, TarError, escape_path};

/// Most shards of one set.
const MAX_SHARDS: usize = 100_000;
/// Beyond this many, shards are opened for each read: a process may hold 1024 files open on most systems.
const MAX_OPEN: usize = 256;
/// Endings of members that are pictures; the content decides the format.
const PICTURES: [&str; 11] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pnm"];
/// How much of each end of a picture goes into the fingerprint.
const SAMPLED_BYTES: u64 = 4096;

/// Pictures in one or more uncompressed tar archives, after the conventions of WebDataset.
///
/// # Samples
/// Members whose names agree up to the first dot of the file name and that follow one another make a sample. Its picture
/// is the member that ends in jpg, jpeg, png, webp, bmp, gif, tif, tiff, ppm, pgm or pnm; where several do, the first whose
/// whole ending that is (`7.png` before `7.mask.png`). Samples without a picture are counted in
/// [`n_without_picture`](Self::n_without_picture). Members whose file name begins with a dot are passed over.
///
/// # Labels
/// `.cls` holds the class as a whole number in text. When every sample has one that is not negative, the numbers that
/// occur are the classes, padded with zeros to one length; else the set is unlabelled.
///
/// # Shards
/// A `.tar` file, a folder of them, or a pattern like `train-{000..146}.tar`. In a folder where names say their part
/// (`train-0001.tar`, `val-0000.tar`) only those of the split are taken.
///
/// # Groups
/// Pictures with the same bytes are one [group](Source::group), called by the first of them.
///
/// # Bad pictures
/// Nothing is decoded at opening. A picture that cannot be decoded is an error when it is read, with the path
/// `shard.tar/member`.
///
/// # Cost
/// Opening reads every header once, and up to 4 KiB of both ends of each picture for the fingerprint, on all threads.
/// Pictures that agree in length and both ends are read whole, to tell whether they are copies: hardly any but copies
/// are. Kept are 48 bytes for a sample and its name. A picture is one read at its place. A picture that is edited in its
/// middle without a change of size, first or last 4 KiB goes unnoticed, unless it has a copy.
///
/// # Source
/// <https://github.com/webdataset/webdataset>
#[derive(Debug)]
pub struct TarSource {
    decode: DecodeOptions,
    /// Each with its name below the folder they have in common.
    shards: Vec<(FixedFile, String)>,
    samples: Vec<Sample>,
    labels: Vec<u32>,
    classes: Vec<String>,
    /// The first picture with the same bytes, for those that have one before them.
    same_as: HashMap<u32, u32>,
    fingerprint: Fingerprint,
    n_without_picture: usize,
}

#[derive(Debug)]
struct Sample {
    shard: u32,
    place: ByteRange,
    /// The name of its picture in the shard.
    name: Box<str>,
}

/// What one shard holds.
struct Shard {
    file: FixedFile,
    samples: Vec<Found>,
    n_members: usize,
    n_without_picture: usize,
}

/// A sample as found, with all that is forgotten later.
struct Found {
    place: ByteRange,
    name: String,
    label: Option<u32>,
    content: Fingerprint,
}

impl TarSource {
    /// Indexes the shards that `path` names.
    ///
    /// # Errors
    /// [`TarError`] when there is no shard, one is compressed, truncated or no archive, or no sample has a picture.
    pub fn open(path: &Path, split: Split, decode: DecodeOptions) -> Result<Self, TarError> {
        let paths = shards(path, split)?;
        let mut indexed = paths.par_iter().map(|path| index_shard(path)).collect::<Result<Vec<Shard>, TarError>>()?;
        if indexed.len() > MAX_OPEN {
            indexed.iter_mut().for_each(|shard| shard.file.release());
        }
        let root = root_of(path);
        let (mut samples, mut labels, mut identity) = (Vec::new(), Vec::new(), Vec::new());
        let mut alike = Alike::default();
        let mut members = 0;
        let mut n_without_picture = 0;
        for (number, shard) in (0u32..).zip(&mut indexed) {
            members += shard.n_members;
            n_without_picture += shard.n_without_picture;
            identity.extend((shard.samples.len() as u64).to_le_bytes());
            let mut names = HashSet::new();
            for found in shard.samples.drain(..) {
                if !names.insert(found.name.clone()) {
                    return Err(TarError::Repeated { name: escape_path(&below(shard.file.path(), &found.name)) });
                }
                identity.extend((found.name.len() as u64).to_le_bytes());
                identity.extend(found.name.bytes());
                identity.extend(found.place.bytes.to_le_bytes());
                identity.extend(found.content.to_le_bytes());
                identity.extend(found.label.map_or(u64::MAX, u64::from).to_le_bytes());
                labels.push(found.label);
                alike.push(found.place.bytes, found.content);
                samples.push(Sample { shard: number, place: found.place, name: found.name.into() });
            }
        }
        if samples.is_empty() {
            return Err(TarError::NoPictures { path: path.to_owned(), members, expected: &PICTURES });
        }
        let files: Vec<&FixedFile> = indexed.iter().map(|shard| &shard.file).collect();
        let same_as = alike.same_as(&files, &samples, &decode)?;
        // Other copies are other groups, and so another loss, even where names, sizes and ends are the same.
        let mut copies: Vec<(u32, u32)> = same_as.iter().map(|(&i, &first)| (i, first)).collect();
        copies.sort_unstable();
        identity.extend(copies.iter().flat_map(|(i, first)| [i.to_le_bytes(), first.to_le_bytes()]).flatten());
        // All of them or none: a label that is sometimes missing is no label.
        let mut labels: Vec<u32> = labels.into_iter().collect::<Option<_>>().unwrap_or_default();
        let classes = if labels.is_empty() { Vec::new() } else { of_numbers(&mut labels) };
        Ok(Self {
            decode,
            shards: indexed.into_iter().map(|shard| named(shard.file, root)).collect(),
            samples,
            labels,
            classes,
            same_as,
            fingerprint: Fingerprint::of_parts([b"tar", identity.as_slice()]),
            n_without_picture,
        })
    }

    /// A name for this set of pictures that changes with any name, size or label in it and, as far as the ends of the
    /// pictures show them, with edits.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Samples that hold no picture and were left out.
    pub fn n_without_picture(&self) -> usize {
        self.n_without_picture
    }

    fn shard(&self, sample: &Sample) -> &FixedFile {
        &self.shards[sample.shard as usize].0
    }
}

impl Source for TarSource {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.labels.get(i).copied()
    }

    fn group(&self, i: usize) -> u64 {
        group_by_first(&self.same_as, i)
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        let sample = &self.samples[i];
        format!("{}/{}", self.shards[sample.shard as usize].1, sample.name).into()
    }

    fn path(&self, i: usize) -> PathBuf {
        let sample = &self.samples[i];
        below(self.shard(sample).path(), &sample.name)
    }

    fn read<'a>(&'a self, i: usize, buffers: &'a mut ReadBuffers) -> Result<&'a Image, SampleError> {
        let sample = &self.samples[i];
        read_picture(self.shard(sample), sample.place, &self.decode, buffers)
            .map_err(|problem| SampleError { path: self.path(i), problem })
    }

    fn read_file(&self, i: usize, buffers: &mut ReadBuffers) -> Result<bool, SampleError> {
        let sample = &self.samples[i];
        read_bytes(self.shard(sample), sample.place, &self.decode, &mut buffers.bytes)
            .map_err(|problem| SampleError { path: self.path(i), problem })?;
        Ok(true)
    }
}

/// Pictures that agree in length and in what was sampled of both ends.
#[derive(Default)]
struct Alike {
    n: u32,
    first_with: HashMap<(u64, [u8; 16]), u32>,
    /// Every picture that agrees with another one, and the first such.
    members: Vec<u32>,
}

impl Alike {
    /// The next picture.
    fn push(&mut self, bytes: u64, content: Fingerprint) {
        let first = *self.first_with.entry((bytes, content.to_le_bytes())).or_insert(self.n);
        if first != self.n {
            self.members.extend([first, self.n]);
        }
        self.n += 1;
    }

    /// For each picture whose bytes an earlier one has, that earlier one. One that is too large to be decoded has none.
    ///
    /// # Errors
    /// [`TarError::Unreadable`].
    fn same_as(
        mut self,
        files: &[&FixedFile],
        samples: &[Sample],
        decode: &DecodeOptions,
    ) -> Result<HashMap<u32, u32>, TarError> {
        self.members.sort_unstable();
        self.members.dedup();
        let content = |bytes: &mut Vec<u8>, &i: &u32| {
            let Sample { shard, place, .. } = &samples[i as usize];
            let file = files[*shard as usize];
            match read_bytes(file, *place, decode, bytes) {
                Ok(()) => Ok(Some((i, (place.bytes, Fingerprint::of(bytes).to_le_bytes())))),
                Err(Problem::Read(reason)) => Err(TarError::Unreadable { path: file.path().to_owned(), reason }),
                Err(_) => Ok(None),
            }
        };
        let contents: Vec<_> = self.members.par_iter().map_init(Vec::new, content).collect::<Result<_, _>>()?;
        let mut first_with = HashMap::new();
        let firsts = contents.into_iter().flatten().map(|(i, content)| (i, *first_with.entry(content).or_insert(i)));
        Ok(firsts.filter(|(i, first)| i != first).collect())
    }
}

/// `shard.tar/member`
fn below(shard: &Path, member: &str) -> PathBuf {
    let mut path = shard.as_os_str().to_owned();
    path.push("/");
    path.push(member);
    path.into()
}

/// The folder that all shards of a path lie below.
fn root_of(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    let parent = path.ancestors().skip(1).find(|parent| !is_pattern(parent));
    parent.unwrap_or(Path::new(""))
}

/// A shard with its name below `root`.
fn named(file: FixedFile, root: &Path) -> (FixedFile, String) {
    let name = escape_relative(file.path().strip_prefix(root).unwrap_or(file.path()));
    (file, name)
}

/// The archives that a path names.
fn shards(path: &Path, split: Split) -> Result<Vec<PathBuf>, TarError> {
    let no_shards = || TarError::NoShards { path: path.to_owned() };
    if path.is_dir() {
        let found = shards_in(path, "tar", split);
        let found = found.map_err(|reason| TarError::Unreadable { path: path.to_owned(), reason })?;
        return if found.is_empty() { Err(no_shards()) } else { Ok(found) };
    }
    if !path.exists() && is_pattern(path) {
        return expand(path).ok_or_else(|| TarError::Pattern { path: path.to_owned(), most: MAX_SHARDS });
    }
    Ok(vec![path.to_owned()])
}

/// Whether a path has a range in braces.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains('{') && text.contains(".."))
}

/// `train-{08..10}.tar` becomes `train-08.tar`, `train-09.tar`, `train-10.tar`.
fn expand(path: &Path) -> Option<Vec<PathBuf>> {
    let (before, rest) = path.to_str()?.split_once('{')?;
    let (range, after) = rest.split_once('}')?;
    let (first, last) = range.split_once("..")?;
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(first) || !all_digits(last) || after.contains('{') {
        return None;
    }
    let (least, most): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    if least > most || most - least >= MAX_SHARDS as u64 {
        return None;
    }
    let width = first.len();
    Some((least..=most).map(|number| format!("{before}{number:0width$}{after}").into()).collect())
}

fn index_shard(path: &Path) -> Result<Shard, TarError> {
    let unreadable = |reason| TarError::Unreadable { path: path.to_owned(), reason };
    let file = FixedFile::open(path).map_err(unreadable)?;
    let mut start = [0; 6];
    let is_long_enough = file.len() >= start.len() as u64;
    if is_long_enough {
        file.read_exact_at(0, &mut start).map_err(unreadable)?;
    }
    let compressed: [&[u8]; 4] = [&[0x1f, 0x8b], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z'], &[0x28, 0xb5, 0x2f, 0xfd]];
    if compressed.iter().any(|magic| start.starts_with(magic)) {
        return Err(TarError::Compressed { path: path.to_owned() });
    }
    let members = index_tar(&file)?;
    let mut shard = Shard { n_members: members.len(), file, samples: Vec::new(), n_without_picture: 0 };
    let visible: Vec<&TarMember> =
        members.iter().filter(|member| !stem_and_ending(&member.name).0.1.is_empty()).collect();
    for sample in visible.chunk_by(|a, b| stem_and_ending(&a.name).0 == stem_and_ending(&b.name).0) {
        match sample_of(&shard.file, sample)? {
            Some(found) => shard.samples.push(found),
            None => shard.n_without_picture += 1,
        }
    }
    Ok(shard)
}

/// The picture of some members that belong together, if one of them is one.
fn sample_of(file: &FixedFile, members: &[&TarMember]) -> Result<Option<Found>, TarError> {
    let unreadable = |reason| TarError::Unreadable { path: file.path().to_owned(), reason };
    let is_picture = |ending: &[u8]| PICTURES.iter().any(|known| ending.eq_ignore_ascii_case(known.as_bytes()));
    let whole = members.iter().find(|member| is_picture(stem_and_ending(&member.name).1));
    let last = || members.iter().find(|member| is_picture(last_ending(&member.name)));
    let Some(picture) = whole.or_else(last) else { return Ok(None) };
    let label = match members.iter().find(|member| stem_and_ending(&member.name).1 == b"cls") {
        Some(member) => read_label(file, member)?,
        None => None,
    };
    let place = picture.place;
    let mut ends = Vec::new();
    let head = place.bytes.min(SAMPLED_BYTES);
    file.read_at(place.offset, head, &mut ends).map_err(unreadable)?;
    let head = Fingerprint::of(&ends);
    let tail = place.bytes.min(SAMPLED_BYTES);
    file.read_at(place.offset + place.bytes - tail, tail, &mut ends).map_err(unreadable)?;
    let content = Fingerprint::of_parts([&head.to_le_bytes()[..], &ends]);
    Ok(Some(Found { place, name: spell(&picture.name), label, content }))
}

/// A label as text; a negative one is none.
fn read_label(file: &FixedFile, member: &TarMember) -> Result<Option<u32>, TarError> {
    let mut text = Vec::new();
    // No number is longer, and a file of another kind is not read whole to find that out.
    let place = member.place;
    file.read_at(place.offset, place.bytes.min(32), &mut text)
        .map_err(|reason| TarError::Unreadable { path: file.path().to_owned(), reason })?;
    let number: Option<i64> = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    match number {
        Some(number) if number < 0 => Ok(None),
        Some(number) if place.bytes <= 32 && number < i64::from(u32::MAX) => Ok(u32::try_from(number).ok()),
        _ => {
            let path = below(file.path(), &spell(&member.name));
            Err(TarError::Label { path, got: text.escape_ascii().to_string() })
        }
    }
}

/// The folder and the file name up to its first dot, and what follows that dot.
#[allow(clippy::type_complexity, reason = "a pair of a pair is what it is")]
fn stem_and_ending(name: &[u8]) -> ((&[u8], &[u8]), &[u8]) {
    let slash = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (folder, file) = name.split_at(slash);
    match file.iter().position(|byte| *byte == b'.') {
        Some(dot) => ((folder, &file[..dot]), &file[dot + 1..]),
        None => ((folder, file), b""),
    }
}

fn last_ending(name: &[u8]) -> &[u8] {
    name.rsplit(|byte| *byte == b'.').next().unwrap_or_default()
}

/// A member's name as text, without what would make it an absolute path.
fn spell(name: &[u8]) -> String {
    let mut name = name;
    while let Some(rest) = name.strip_prefix(b"./").or_else(|| name.strip_prefix(b"/")) {
        name = rest;
    }
    match std::str::from_utf8(name) {
        Ok(text) => escape_path(Path::new(text)),
        Err(_) => name.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_expanded_with_their_zeros() {
        let names = |text: &str| {
            expand(Path::new(text)).map(|paths| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(names("a/x-{08..10}.tar").expect("a range"), ["a/x-08.tar", "a/x-09.tar", "a/x-10.tar"]);
        for bad in
            ["x-{1..}.tar", "x-{5..1}.tar", "x-{a..b}.tar", "x-{1..2}-{1..2}.tar", "x-{0..99999999}.tar", "x{1..2"]
        {
            assert_eq!(names(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_cut_at_the_first_dot_of_the_file() {
        assert_eq!(stem_and_ending(b"v1.0/a.left.jpg"), ((&b"v1.0/"[..], &b"a"[..]), &b"left.jpg"[..]));
        assert_eq!(stem_and_ending(b"a/.DS_Store").0.1, b"");
        assert_eq!(spell(b"././a.jpg"), "a.jpg");
        assert_eq!(spell(b"/etc/a\xff.jpg"), "etc/a\\xff.jpg");
    }
}
